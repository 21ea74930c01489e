from __future__ import annotations

import base64
import gzip
import io
import json
import logging
from functools import partial

import httpx2
import numpy as np
import pytest
from PIL import Image
from prometheus_client.parser import text_string_to_metric_families

from diffusion_art.diffusion.samplers import SAMPLERS
from diffusion_art.diffusion.samplers.euler import Heun
from diffusion_art.models.codec import Unshuffle2
from diffusion_art.runs import load_run
from diffusion_art.serving.settings import Settings
from diffusion_art.sheets import encode
from diffusion_art.tensors import to_uint8
from tests.serving.raw import connect, read_head
from tests.serving.running import serving

GENERATIONS = "/v1/images/generations"


def pixels_of(b64_json: str) -> np.ndarray:
    with Image.open(io.BytesIO(base64.b64decode(b64_json))) as picture:
        return np.asarray(picture.convert("RGB"))


def events_of(text: str) -> list[tuple[str, dict]]:
    """The events of a stream: (name, data)."""
    found = []
    for block in text.split("\n\n"):
        lines = dict(line.split(": ", 1) for line in block.splitlines() if not line.startswith(":"))
        if lines:
            found.append((lines["event"], json.loads(lines["data"])))
    return found


# ---------------------------------------------------------------------- pictures


def test_a_picture_is_the_one_the_run_itself_paints(client, toy_folder):
    answer = client.post(GENERATIONS, json={"prompt": "red / house", "seed": 5, "n": 3, "negative_prompt": "blue"})
    assert answer.status_code == 200
    body = answer.json()
    assert (body["output_format"], body["size"]) == ("png", "16x16")
    assert [picture["seed"] for picture in body["data"]] == [5, 6, 7]
    run = load_run(toy_folder)
    own = to_uint8(run.sample(["red / house"] * 3, seed=5, negative_prompt="blue"))
    for picture, expected in zip(body["data"], own, strict=True):
        difference = np.abs(pixels_of(picture["b64_json"]).astype(int) - expected)
        assert difference.max() <= 1  # alone or in company: the last bit of a float at most


def test_everything_of_a_request_counts(client):
    def paint(**asked) -> bytes:
        answer = client.post(GENERATIONS, json={"prompt": "red", "seed": 1, **asked})
        assert answer.status_code == 200, answer.text
        return pixels_of(answer.json()["data"][0]["b64_json"]).tobytes()

    plain = paint()
    assert paint() == plain
    assert paint(sampler="euler", num_inference_steps=3, guidance_scale=2, size="16x16", model="toy") == plain
    others = [
        paint(prompt="blue"),
        paint(seed=2),
        paint(num_inference_steps=2),
        paint(guidance_scale=1),
        paint(guidance_scale=5.5),
        paint(sampler="heun"),
        paint(negative_prompt="green"),
        paint(times=[1, 0.8, 0.1, 0]),
        paint(guidance_threshold=0.95),
        paint(guidance_scale=20),
        paint(guidance_scale=20, guidance_interval=[0.5, 1]),
    ]
    assert len({plain, *others}) == 12


@pytest.mark.parametrize(
    ("changes", "guidance"),
    [
        ({}, {"interval": [0.2, 0.9], "rescale": 0.5, "threshold": 0.0}),
        ({"interval": [0, 1], "threshold": 0.95}, {"interval": [0.0, 1.0], "rescale": 0.5, "threshold": 0.95}),
        ({"rescale": 0}, {"interval": [0.2, 0.9], "rescale": 0.0, "threshold": 0.0}),
    ],
)
def test_a_grid_and_tempered_guidance_are_as_the_run_itself_paints_and_told_in_the_picture(
    toy_folder, changes, guidance
):
    """What a request does not say of them stays as the run has it."""
    run = load_run(toy_folder)
    run.config["guidance"] = {"interval": [0.2, 0.9], "rescale": 0.5, "threshold": 0.0}
    asked = {"prompt": "red", "seed": 5, "guidance_scale": 20, "sampler": "heun", "times": [1, 0.7, 0.3, 0]}
    asked |= {f"guidance_{name}": value for name, value in changes.items()}
    with serving(run) as own, httpx2.Client(base_url=own.url, trust_env=False) as client:
        content = client.post(GENERATIONS, json=asked).json()["data"][0]["b64_json"]
        defaults = client.get("/v1/models").json()["data"][0]["defaults"]
    assert (defaults["guidance_interval"], defaults["guidance_rescale"]) == ([0.2, 0.9], 0.5)
    sampler = Heun(times=asked["times"])
    expected = to_uint8(run.sample("red", seed=5, guidance_scale=20, sampler=sampler, guidance=guidance)[0])
    assert np.abs(pixels_of(content).astype(int) - expected).max() <= 1
    with Image.open(io.BytesIO(base64.b64decode(content))) as picture:
        assert json.loads(picture.text["guidance"]) == guidance
        assert json.loads(picture.text["sampler"]) == sampler.describe()


class Boundless(Unshuffle2):
    """Latents that are no pixels, as a VAE's."""

    bounded = False


def test_a_threshold_needs_latents_that_have_a_range(toy_folder):
    run = load_run(toy_folder)
    run.model.codec = Boundless()
    with serving(run) as own, httpx2.Client(base_url=own.url, trust_env=False) as client:
        refused = client.post(GENERATIONS, json={"prompt": "red", "guidance_threshold": 0.9})
        assert client.post(GENERATIONS, json={"prompt": "red", "guidance_threshold": 0}).status_code == 200
    assert (refused.status_code, refused.json()["error"]["param"]) == (400, "guidance_threshold")
    assert "guidance_rescale" in refused.json()["error"]["message"]


def test_without_a_seed_pictures_differ_and_can_be_painted_again(client):
    first, second = (client.post(GENERATIONS, json={"prompt": "red"}).json()["data"][0] for _ in range(2))
    assert first["seed"] != second["seed"]
    again = client.post(GENERATIONS, json={"prompt": "red", "seed": first["seed"]}).json()["data"][0]
    assert (pixels_of(again["b64_json"]) == pixels_of(first["b64_json"])).all()


def test_a_seed_of_minus_one_is_any(client):
    first, second = (client.post(GENERATIONS, json={"prompt": "red", "seed": -1}).json()["data"][0] for _ in range(2))
    assert 0 <= first["seed"] != second["seed"] >= 0


@pytest.mark.parametrize(
    ("asked", "key"),
    [
        ({"model": "dall-e-3"}, "url"),
        ({"model": "dall-e-2"}, "url"),
        ({"model": "gpt-image-1"}, "b64_json"),
        ({}, "b64_json"),
        ({"model": "toy"}, "b64_json"),
        ({"model": "dall-e-3", "response_format": "b64_json"}, "b64_json"),
        ({"model": "gpt-image-1", "response_format": "url"}, "url"),
    ],
)
def test_what_is_answered_where_no_format_is_asked_for(client, asked, key):
    (picture,) = client.post(GENERATIONS, json={"prompt": "red", "num_inference_steps": 1, **asked}).json()["data"]
    assert [name for name in ("url", "b64_json") if picture[name] is not None] == [key]


@pytest.mark.parametrize("path", ["edits", "variations"])
def test_pictures_are_not_edited_here(client, path):
    """Also a picture that is larger than the bodies that are read."""
    answer = client.post(f"/v1/images/{path}", files={"image": b"x" * 3_000_000}, data={"prompt": "red"})
    assert answer.status_code == 501
    assert answer.headers["x-should-retry"] == "false"
    assert answer.json()["error"].keys() == {"message", "type", "param", "code"}
    assert "captions only" in answer.json()["error"]["message"]
    assert client.get("/health").status_code == 200


def test_a_seed_out_of_range_is_told_with_the_whole_limit_and_1e19_is_none(client):
    """At both addresses: 2^64 in floats is another number."""
    for path in (GENERATIONS, "/sdapi/v1/txt2img"):
        refused = client.post(path, json={"prompt": "red", "seed": 2**64})
        assert "should be less than 18446744073709551616." in refused.text
        assert client.post(path, json={"prompt": "red", "seed": 1e19}).status_code == 200


@pytest.mark.parametrize("asked", [{"output_format": "JPG", "size": "16X16"}, {"output_format": "jpg"}])
def test_formats_and_sizes_are_taken_as_files_and_people_write_them(client, asked):
    answer = client.post(GENERATIONS, json={"prompt": "red", **asked}).json()
    assert (answer["output_format"], answer["size"]) == ("jpeg", "16x16")


def test_seeds_begin_again_after_the_last(client):
    for first in (2**32 - 1, 2**53 - 1, 2**64 - 1):
        data = client.post(GENERATIONS, json={"prompt": "red", "seed": first, "n": 2}).json()["data"]
        assert [picture["seed"] for picture in data] == [2**32 - 1, 0]


@pytest.mark.parametrize(
    ("format", "compression", "exact"),
    [("png", None, True), ("webp", 100, True), ("webp", 80, False), ("jpeg", 100, False), ("jpeg", 5, False)],
)
def test_formats_and_the_story_inside(client, format, compression, exact):
    asked = {"prompt": "Größe / red", "seed": 3, "output_format": format}
    asked |= {} if compression is None else {"output_compression": compression}
    answer = client.post(GENERATIONS, json=asked).json()
    assert answer["output_format"] == format
    content = base64.b64decode(answer["data"][0]["b64_json"])
    reference = pixels_of(
        client.post(GENERATIONS, json={**asked, "output_format": "png"}).json()["data"][0]["b64_json"]
    )
    with Image.open(io.BytesIO(content)) as picture:
        assert picture.format == format.upper()
        difference = np.abs(np.asarray(picture.convert("RGB")).astype(int) - reference)
        story = dict(picture.text) if format == "png" else json.loads(picture.getexif()[0x010E])
    assert (difference.max() == 0) == exact
    assert (story["prompt"], str(story["seed"]), str(story["num_steps"])) == ("Größe / red", "3", "3")
    assert story["checkpoint"].startswith("step_00000005-")


def test_a_jpeg_without_room_for_its_whole_story_keeps_the_prompts_in_its_parameters(client):
    prompts = {"prompt": "🎨" * 4000, "negative_prompt": "赤" * 4000}
    asked = {**prompts, "seed": 3, "output_format": "jpeg", "num_inference_steps": 1}
    answer = client.post(GENERATIONS, json=asked)
    assert answer.status_code == 200
    with Image.open(io.BytesIO(base64.b64decode(answer.json()["data"][0]["b64_json"]))) as picture:
        exif = picture.getexif()
    story = json.loads(exif[0x010E])
    assert (story["seed"], prompts.keys() & story.keys()) == (3, set())
    parameters = exif.get_ifd(0x8769)[0x9286].removeprefix(b"UNICODE\0").decode("utf-16-be")
    assert parameters.startswith("{prompt}\nNegative prompt: {negative_prompt}\nSteps: 1, ".format(**prompts))


def test_a_jpeg_keeps_of_a_story_what_it_has_room_for():
    story = {"parameters": "x" * 40_000, "prompt": "x" * 40_000, "seed": 3}
    with Image.open(io.BytesIO(encode(np.zeros((16, 16, 3), np.uint8), format="jpeg", story=story))) as picture:
        assert dict(picture.getexif()) == {0x010E: '{"seed": 3}'}


def test_compression_makes_jpeg_smaller(client):
    sizes = [
        len(client.post(GENERATIONS, json={"prompt": "red", "output_format": "jpeg", "output_compression": q}).content)
        for q in (5, 95)
    ]
    assert sizes[0] < sizes[1]


def test_a_url_serves_the_picture_and_needs_no_token_of_its_own(client):
    data = client.post(GENERATIONS, json={"prompt": "red", "seed": 1, "response_format": "url"}).json()["data"][0]
    assert data["b64_json"] is None
    found = client.get(data["url"])
    assert found.status_code == 200
    assert found.headers["content-type"] == "image/png"
    assert found.headers["cache-control"].startswith("private, max-age=3")
    inline = client.post(GENERATIONS, json={"prompt": "red", "seed": 1}).json()["data"][0]["b64_json"]
    assert found.content == base64.b64decode(inline)
    assert client.get(data["url"] + "x").json()["error"]["code"] == "file_expired"


# ---------------------------------------------------------------------- the stream


def test_a_stream_shows_the_picture_on_its_way(client):
    asked = {"prompt": "red", "seed": 4, "num_inference_steps": 8}
    answer = client.post(GENERATIONS, json={**asked, "stream": True, "partial_images": 3})
    assert answer.headers["content-type"].startswith("text/event-stream")
    events = events_of(answer.text)
    assert [name for name, _ in events] == ["image_generation.partial_image"] * 3 + ["image_generation.completed"]
    assert all(name == data["type"] for name, data in events)
    assert [data["partial_image_index"] for _, data in events[:3]] == [0, 1, 2]
    assert all(data["seed"] == 4 and data["size"] == "16x16" for _, data in events)
    progress = [data["progress"] for _, data in events[:3]]
    assert progress == sorted(progress)
    assert len({data["b64_json"] for _, data in events}) == 4
    plain = client.post(GENERATIONS, json=asked).json()["data"][0]["b64_json"]
    assert (pixels_of(events[-1][1]["b64_json"]) == pixels_of(plain)).all()


def test_a_stream_of_several_pictures_tells_them_apart(client):
    asked = {"prompt": "red", "seed": 4, "n": 3, "stream": True, "partial_images": 1, "num_inference_steps": 5}
    events = events_of(client.post(GENERATIONS, json=asked).text)
    done = {data["image_index"]: data["seed"] for name, data in events if name.endswith("completed")}
    looks = {data["image_index"] for name, data in events if name.endswith("partial_image")}
    assert done == {0: 4, 1: 5, 2: 6}
    assert looks == {0, 1, 2}


def test_a_stream_without_looks(client):
    answer = client.post(GENERATIONS, json={"prompt": "red", "stream": True})
    assert [name for name, _ in events_of(answer.text)] == ["image_generation.completed"]


# ---------------------------------------------------------------------- refusals


@pytest.mark.parametrize(
    ("asked", "param", "code"),
    [
        ({}, "prompt", "missing_required_parameter"),
        ({"prompt": ""}, "prompt", "empty_prompt"),
        ({"prompt": "  \n\t"}, "prompt", "empty_prompt"),
        ({"prompt": None}, "prompt", "invalid_value"),
        ({"prompt": ["red"]}, "prompt", "invalid_value"),
        ({"prompt": "x" * 4001}, "prompt", "prompt_too_long"),
        ({"prompt": "x", "negative_prompt": "x" * 4001}, "negative_prompt", "prompt_too_long"),
        ({"prompt": "x", "n": 0}, "n", "invalid_value"),
        ({"prompt": "x", "n": 11}, "n", "too_many_pictures"),
        ({"prompt": "x", "n": 10**400}, "n", "too_many_pictures"),
        ({"prompt": "x", "n": True}, "n", "invalid_value"),
        ({"prompt": "x", "n": "2"}, "n", "invalid_value"),
        ({"prompt": "x", "size": "1x1"}, "size", "invalid_size"),
        ({"prompt": "x", "size": "99999x99999"}, "size", "invalid_size"),
        ({"prompt": "x", "size": "abc"}, "size", "invalid_size"),
        ({"prompt": "x", "num_inference_steps": 0}, "num_inference_steps", "invalid_value"),
        ({"prompt": "x", "num_inference_steps": 10**9}, "num_inference_steps", "too_many_steps"),
        ({"prompt": "x", "num_inference_steps": 10**400}, "num_inference_steps", "too_many_steps"),
        ({"prompt": "x", "guidance_scale": float("nan")}, "guidance_scale", "invalid_value"),
        ({"prompt": "x", "guidance_scale": 21}, "guidance_scale", "invalid_value"),
        ({"prompt": "x", "guidance_interval": [0.5]}, "guidance_interval", "invalid_value"),
        ({"prompt": "x", "guidance_interval": [0.8, 0.2]}, "guidance_interval", "invalid_value"),
        ({"prompt": "x", "guidance_interval": [0.2, 1.5]}, "guidance_interval.1", "invalid_value"),
        ({"prompt": "x", "guidance_interval": [float("nan"), 1]}, "guidance_interval.0", "invalid_value"),
        ({"prompt": "x", "guidance_rescale": 1.1}, "guidance_rescale", "invalid_value"),
        ({"prompt": "x", "guidance_threshold": 1}, "guidance_threshold", "invalid_value"),
        ({"prompt": "x", "guidance_threshold": -0.1}, "guidance_threshold", "invalid_value"),
        ({"prompt": "x", "times": []}, "times", "invalid_value"),
        ({"prompt": "x", "times": [1, 0.5]}, "times", "invalid_value"),
        ({"prompt": "x", "times": [1, 0.5, 0.5, 0]}, "times", "invalid_value"),
        ({"prompt": "x", "times": [1, 0.5 + 1e-9, 0.5, 0]}, "times", "invalid_value"),
        ({"prompt": "x", "times": [1, 10**400, 0]}, "times.1", "invalid_value"),
        ({"prompt": "x", "times": ["a"] * 50_000}, "times.0", "invalid_value"),
        ({"prompt": "x", "times": [1, *[0.5] * 50_000, 0]}, "times", "too_many_steps"),
        ({"prompt": "x", "times": [1, 0.5, 0], "num_inference_steps": 3}, "times", "invalid_value"),
        ({"prompt": "x", "times": [1, 0], "sampler": "magic"}, "sampler", "invalid_value"),
        ({"prompt": "x", "seed": -2}, "seed", "invalid_value"),
        ({"prompt": "x", "seed": 2**64}, "seed", "invalid_value"),
        ({"prompt": "x", "sampler": "magic"}, "sampler", "invalid_value"),
        ({"prompt": "x", "output_format": "gif"}, "output_format", "invalid_value"),
        ({"prompt": "x", "output_compression": 101}, "output_compression", "invalid_value"),
        ({"prompt": "x", "partial_images": 4}, "partial_images", "invalid_value"),
        ({"prompt": "x", "stream": True, "response_format": "url"}, "response_format", "invalid_value"),
        ({"prompt": "x", "stepps": 3}, "stepps", "unknown_parameter"),
        ({"prompt": "x", "\ud800": 3}, None, None),
        ({"prompt": "\ud800"}, "prompt", "invalid_value"),
    ],
)
def test_what_cannot_be_painted_is_refused_by_name(client, asked, param, code):
    answer = client.post(GENERATIONS, content=json.dumps(asked), headers={"content-type": "application/json"})
    assert answer.status_code == 400
    error = answer.json()["error"]
    assert error.keys() == {"message", "type", "param", "code"}
    assert error["type"] == "invalid_request_error"
    if code:
        assert (error["param"], error["code"]) == (param, code)
    assert len(answer.content) < 600


def test_another_model_is_not_here(client):
    answer = client.post(GENERATIONS, json={"prompt": "x", "model": "sdxl"})
    assert answer.status_code == 404
    assert answer.json()["error"]["code"] == "model_not_found"
    assert "'toy'" in answer.json()["error"]["message"]


@pytest.mark.parametrize(
    "body", [b"", b"{", b"[" * 100_000, b"3", b"[]", b"\xff\xfe", b'{"prompt": 1' + b"0" * 9999 + b"}"]
)
def test_bodies_that_are_no_request(client, body):
    answer = client.post(GENERATIONS, content=body, headers={"content-type": "application/json"})
    assert answer.status_code == 400
    assert answer.json()["error"]["type"] == "invalid_request_error"


def test_a_form_of_some_other_page_is_no_request(client):
    answer = client.post(GENERATIONS, content=b'{"prompt": "x"}', headers={"content-type": "text/plain"})
    assert answer.status_code == 400
    assert "application/json" in answer.json()["error"]["message"]


@pytest.mark.parametrize(
    "prompt", ["a\0b", "שלום / عالم", "🎨" * 50, "{artist}", "'; DROP", "\u202e\u200b", "../../etc"]
)
def test_odd_prompts_are_painted(client, prompt):
    answer = client.post(GENERATIONS, json={"prompt": prompt, "num_inference_steps": 1})
    assert answer.status_code == 200
    assert answer.json()["data"][0]["b64_json"]


def test_fields_of_openais_clients_are_taken_and_ignored(client):
    asked = {"quality": "hd", "style": "vivid", "background": "auto", "moderation": "low", "user": "me", "n": None}
    assert client.post(GENERATIONS, json={"prompt": "x", **asked}).status_code == 200

    odd = {"user": 5, "quality": 3, "complexity": "low"}
    assert client.post(GENERATIONS, json={"prompt": "x", **odd}).status_code == 200


def test_what_a_client_leaves_null_asks_for_nothing(client):
    assert client.post(GENERATIONS, json={"prompt": "x", "model": "", "svg": None, "steps": None}).status_code == 200


def test_what_a_client_leaves_empty_asks_for_nothing(client):
    unset = dict.fromkeys(("size", "seed", "model", "sampler", "response_format", "output_format", "image"), "")
    answer = client.post(GENERATIONS, json={"prompt": "red", **unset})
    assert answer.status_code == 200, answer.text
    assert answer.json()["size"] == "16x16"
    assert client.post(GENERATIONS, json={"prompt": ""}).json()["error"]["code"] == "empty_prompt"


def test_fields_of_the_package_that_went_out_as_they_are_are_told_their_place(client):
    message = client.post(GENERATIONS, json={"prompt": "red", "extra_body": {"seed": 3}}).json()["error"]["message"]
    assert message == "Unknown parameter: 'extra_body'; what it holds belongs beside 'prompt'."


def test_a_whole_number_may_have_a_point(client):
    whole = {"n": 2.0, "seed": 7.0, "num_inference_steps": 2.0, "output_compression": 90.0, "partial_images": 0.0}
    answer = client.post(GENERATIONS, json={"prompt": "x", **whole})
    assert [picture["seed"] for picture in answer.json()["data"]] == [7, 8]
    assert client.post(GENERATIONS, json={"prompt": "x", "n": 1.5}).json()["error"]["param"] == "n"


@pytest.mark.parametrize(
    ("theirs", "ours"), [("steps", "num_inference_steps"), ("cfg_scale", "guidance_scale"), ("width", "size")]
)
def test_a_field_by_the_name_of_another_server_is_told_ours(client, theirs, ours):
    error = client.post(GENERATIONS, json={"prompt": "x", theirs: 5}).json()["error"]
    assert (error["param"], error["message"]) == (theirs, f"Unknown parameter: '{theirs}'; here it is called '{ours}'.")


def test_a_prompt_by_the_name_of_another_server_is_told_ours(client):
    error = client.post(GENERATIONS, json={"inputs": "x", "parameters": {"seed": 3}}).json()["error"]
    assert error["message"] == "Unknown parameter: 'inputs'; here it is called 'prompt'."


def test_a_packed_body_is_refused_with_what_helps(client):
    headers = {"content-type": "application/json", "content-encoding": "gzip"}
    answer = client.post(GENERATIONS, content=gzip.compress(b'{"prompt": "x"}'), headers=headers)
    assert (answer.status_code, answer.json()["error"]["code"]) == (415, "unsupported_encoding")
    assert "not as 'gzip': send it without Content-Encoding" in answer.json()["error"]["message"]
    plain = client.post(GENERATIONS, json={"prompt": "x"}, headers={"content-encoding": "identity"})
    assert plain.status_code == 200


def test_a_body_that_is_not_in_utf_8(client):
    body = '{"prompt": "Été"}'.encode("latin-1")
    error = client.post(GENERATIONS, content=body, headers={"content-type": "application/json"}).json()["error"]
    assert (error["code"], error["message"]) == ("invalid_json", "The body cannot be read as JSON in UTF-8.")


@pytest.mark.parametrize(
    ("asked", "meant"),
    [
        *[("/images/generations", GENERATIONS), ("/v1/v1/models", "/v1/models"), ("/v1/health", "/health"), ("/x", "")],
        ("/openai/deployments/dall-e-3/images/generations", GENERATIONS),
        ("/somewhere/behind/a/proxy/sdapi/v1/txt2img", "/sdapi/v1/txt2img"),
        ("/api/ready", "/ready"),
    ],
)
def test_an_address_that_is_nearly_one_of_ours(client, asked, meant):
    answer = client.post(asked, json={"prompt": "x"})
    assert answer.status_code == 404
    assert (f"Did you mean {meant}?" in answer.json()["error"]["message"]) == bool(meant)


def test_head_is_get_without_the_body(client):
    url = client.post(GENERATIONS, json={"prompt": "x", "response_format": "url"}).json()["data"][0]["url"]
    for path in ("/", "/health", "/v1/models", url):
        got, asked = client.get(path), client.head(path)
        assert (asked.status_code, asked.content) == (200, b"")
        for name in ("content-type", "content-length"):
            assert asked.headers[name] == got.headers[name]
    assert client.head(GENERATIONS).status_code == 405


def test_nothing_there_and_nothing_of_that_kind(client):
    missing = client.get("/nowhere")
    assert (missing.status_code, missing.json()["error"]["type"]) == (404, "invalid_request_error")
    wrong = client.get(GENERATIONS)
    assert wrong.status_code == 405
    assert wrong.headers["allow"] == "POST"
    assert "cannot be asked with GET, but with POST." in wrong.json()["error"]["message"]


@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/responses", "/v1/audio/speech"])
def test_what_other_servers_are_for_is_told_where_pictures_are(client, path):
    answer = client.post(path, json={"model": "x"})
    assert answer.status_code == 404
    assert f"This server only paints: ask {GENERATIONS}." in answer.json()["error"]["message"]
    assert "only paints" not in client.post("/nowhere", json={}).json()["error"]["message"]


# ---------------------------------------------------------------------- the rest


def test_models(client):
    listed = client.get("/v1/models").json()
    assert listed["object"] == "list"
    (model,) = listed["data"]
    assert (model["id"], model["object"], model["size"], model["step"]) == ("toy", "model", "16x16", 5)
    assert model["defaults"] == {
        "num_inference_steps": 3,
        "times": None,
        "guidance_scale": 2.0,
        "guidance_interval": None,
        "guidance_rescale": 0.0,
        "guidance_threshold": 0.0,
        "sampler": "euler",
    }
    assert model["samplers"] == list(SAMPLERS)
    assert model["trained"].startswith("Trained for 5 ")
    assert model["better"]
    assert client.get("/v1/models/").json() == listed
    assert client.get("/v1/models/toy").json() == model
    assert client.get("/v1/models/dall-e-3").json() == model
    assert client.get("/v1/models/other").status_code == 404


def test_health_and_readiness(client):
    for path in ("/health", "/ready", "/healthz", "/livez", "/readyz", "/ping"):
        answer = client.get(path)
        assert answer.status_code == 200
        assert (answer.json()["status"], answer.json()["model"]) == ("ok", "toy")


def test_every_answer_has_a_name_and_a_lock(client):
    for path in ("/health", "/nowhere", "/"):
        headers = client.get(path).headers
        assert len(headers["x-request-id"]) == 16
        assert headers["x-content-type-options"] == "nosniff"
        assert "server" not in headers


def test_metrics_count_what_was_done(toy_folder):
    with serving(toy_folder) as own, httpx2.Client(base_url=own.url, trust_env=False) as client:
        client.post(GENERATIONS, json={"prompt": "x", "n": 3})
        client.post(GENERATIONS, json={"prompt": ""})
        client.get("/nowhere/else")
        text = client.get("/metrics").text
    figures = {
        (sample.name.removeprefix("diffusion_art_serve_"), *sample.labels.values()): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }
    assert figures["requests_total", GENERATIONS, "200"] == 1
    assert figures["requests_total", GENERATIONS, "400"] == 1
    assert figures["requests_total", "other", "404"] == 1
    assert figures["pictures_total", "finished"] == 3
    assert figures["picture_seconds_count", "1-5"] == 3
    assert figures["request_seconds_count", GENERATIONS] == 2
    assert (figures["queue_pictures",], figures["running_pictures",]) == (0, 0)
    assert 0 < figures["batch_fill",] <= 1
    assert figures["step_seconds",] > 0
    assert figures["picture_bytes_total", "png"] > 300
    assert ("resident_memory_bytes",) in figures or ("process_resident_memory_bytes",) in figures


def test_metrics_in_openmetrics_for_those_who_ask(client):
    answer = client.get("/metrics", headers={"accept": "application/openmetrics-text; version=1.0.0"})
    assert answer.headers["content-type"].startswith("application/openmetrics-text")
    assert answer.text.endswith("# EOF\n")


def test_the_page_and_its_files_and_no_others(client):
    page = client.get("/")
    assert page.status_code == 200
    assert page.headers["content-type"].startswith("text/html")
    assert "script-src 'self'" in page.headers["content-security-policy"]
    assert client.get("/page/app.js").headers["content-type"].startswith("text/javascript")
    for path in ("/page/..%2fapp.py", "/page/app.py", "/page/", "/page/%2e%2e/studio.py"):
        assert client.get(path).status_code == 404


def test_docs_stand_alone(client):
    page = client.get("/docs")
    assert page.status_code == 200
    for word in ("negative_prompt", "list of number 0..1", "curl http://127.0.0.1", "POST /predict", "required"):
        assert word in page.text
    assert "<script" not in page.text
    assert "src=" not in page.text


def test_the_openapi_description(client):
    api = client.get("/openapi.json").json()
    assert set(api["paths"]) == {
        GENERATIONS,
        "/predict",
        "/info",
        *(f"/sdapi/v1/{name}" for name in ("txt2img", "progress", "interrupt", "samplers", "schedulers", "sd-models")),
        *(f"/sdapi/v1/{name}" for name in ("upscalers", "options", "png-info")),
        "/v1/models",
        "/v1/models/{name}",
        "/v1/suggestions",
        "/health",
        "/ready",
        "/metrics",
    }
    answers = api["paths"][GENERATIONS]["post"]["responses"]
    assert {"200", "400", "401", "413", "429", "503"} <= set(answers)
    assert "422" not in answers
    assert "ValidationError" not in json.dumps(api["components"])


def test_suggestions_from_the_runs_prompts(client):
    found = client.get("/v1/suggestions").json()
    assert found["prompts"] == ["red", "blue"]
    assert found["artists"] == found["years"] == []


def test_prompts_are_not_logged(client, caplog):
    with caplog.at_level(logging.INFO):
        client.post(GENERATIONS, json={"prompt": "my secret wish", "negative_prompt": "my secret wish"})
        client.post(GENERATIONS, json={"prompt": "my secret wish" * 999})
        client.post(GENERATIONS, json={"prompt": "my secret wish", "my secret wish": 1})
        client.post("/predict", json=[{"caption": "my secret wish"}])
        client.get("/my secret wish?my secret wish")
    ours = "\n".join(record.getMessage() for record in caplog.records if not record.name.startswith("http"))
    assert "generations 200" in ours
    assert "secret" not in ours


@pytest.mark.slow
def test_behind_a_proxy_that_has_it_below_a_path(toy_folder):
    at, host = "https://art.example/art", {"host": "art.example"}  # as a proxy passes it on, the path cut off
    settings = Settings(public_url=f"{at}/")
    with (
        serving(toy_folder, settings=settings) as own,
        httpx2.Client(base_url=own.url, headers=host, trust_env=False) as proxy,
    ):
        answer = proxy.post(
            GENERATIONS, json={"prompt": "x", "response_format": "url", "num_inference_steps": 1}
        ).json()
        url = answer["data"][0]["url"]
        assert url.startswith(f"{at}/files/")
        assert proxy.get(url.removeprefix(at)).headers["content-type"] == "image/png"
        assert proxy.get("/openapi.json").json()["servers"] == [{"url": at}]
        assert f"curl {at}/v1/images/generations" in proxy.get("/docs").text


def test_other_pages_may_not_call_unless_they_are_named(toy_folder, client):
    origin = {"origin": "https://example.org"}
    asking = {**origin, "access-control-request-method": "POST", "access-control-request-headers": "content-type"}
    assert "access-control-allow-origin" not in client.get("/health", headers=origin).headers
    refused = client.options(GENERATIONS, headers=asking)
    assert refused.status_code == 405
    assert "cors=[https://example.org]" in refused.json()["error"]["message"]
    settings = Settings(cors=("https://example.org",), tokens=("a token of some length".replace(" ", "-"),))
    with serving(toy_folder, settings=settings) as own, httpx2.Client(base_url=own.url, trust_env=False) as named:
        allowed = named.options(GENERATIONS, headers=asking)
        assert (allowed.status_code, allowed.headers["access-control-allow-origin"]) == (200, "https://example.org")
        theirs = {"access-control-request-headers": "authorization, content-type, x-stainless-lang, x-stainless-os"}
        assert named.options(GENERATIONS, headers=asking | theirs).status_code == 200  # the openai package in a page
        private = named.options(GENERATIONS, headers=asking | {"access-control-request-private-network": "true"})
        assert (private.status_code, private.headers["access-control-allow-private-network"]) == (200, "true")
        other = named.options(GENERATIONS, headers={**asking, "origin": "https://example.com"})
        assert "access-control-allow-origin" not in other.headers


def test_pages_that_are_named_may_read_what_is_refused_and_are_let_in_no_further(toy_folder):
    token, origin = "a-token-of-some-length", {"origin": "https://example.org"}
    known = {"authorization": f"Bearer {token}"}
    open_to, guarded = Settings(cors=(origin["origin"],)), Settings(cors=(origin["origin"],), tokens=(token,))
    with serving(toy_folder, settings=guarded) as own, httpx2.Client(base_url=own.url, trust_env=False) as page:
        refused = page.post(GENERATIONS, json={"prompt": "x"}, headers=origin)
        large = page.post(GENERATIONS, json={"prompt": "x" * 1_000_000}, headers=origin | known)
        posing = page.post(
            GENERATIONS, json={"prompt": "x"}, headers={**origin, "access-control-request-method": "POST"}
        )
        stranger = page.post(GENERATIONS, json={"prompt": "x"}, headers={"origin": "https://example.com"})
        assert page.options(GENERATIONS, headers=origin).status_code == 405
    with serving(toy_folder, settings=open_to) as own, httpx2.Client(base_url=own.url, trust_env=False) as page:
        elsewhere = page.get("/health", headers={**origin, "host": "evil.example"})
    assert "access-control-allow-origin" not in stranger.headers
    for answer, status in ((refused, 401), (large, 413), (posing, 401), (elsewhere, 421)):
        assert answer.status_code == status
        assert answer.headers["access-control-allow-origin"] == origin["origin"]
        assert answer.headers["x-request-id"]


@pytest.mark.parametrize("path", [GENERATIONS, "/predict", "/v1/models", "/v1/models/toy", "/health"])
def test_an_address_with_a_slash_at_its_end_is_the_same_address(client, path):
    body = {"/predict": {"prompt": "red"}, GENERATIONS: {"prompt": "red", "seed": 3}}.get(path)
    ask = partial(client.request, "POST" if body else "GET", json=[body] if path == "/predict" else body)
    plain, slashed = ask(path), ask(f"{path}/")
    assert slashed.status_code == plain.status_code
    if "created" not in plain.text:
        assert slashed.json() == plain.json()


@pytest.mark.parametrize("path", ["//v1/models", "/v1//models/", "http://localhost/v1/models", "//v1///models//"])
def test_an_address_that_a_client_put_together_is_the_same_address(server, path):
    answer = asked_raw(server.port, f"GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n")
    assert answer.startswith(b"HTTP/1.1 200"), answer


def test_slashes_are_no_way_around_a_token(toy_folder):
    with serving(toy_folder, settings=Settings(tokens=("s" * 20,))) as server:
        for path in (f"{GENERATIONS}/", f"/{GENERATIONS}", "/v1//images/generations", f"http://localhost{GENERATIONS}"):
            answer = asked_raw(server.port, f"POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Length: 0\r\n\r\n")
            assert answer.startswith(b"HTTP/1.1 401"), path


def asked_raw(port: int, request: str) -> bytes:
    """The head of the answer to an address that HTTP libraries would put in order."""
    with connect(port) as link:
        link.sendall(request.encode())
        return read_head(link)


def test_a_client_of_websocket_is_told_in_one_line(client, caplog):
    asked = {
        "connection": "Upgrade",
        "upgrade": "websocket",
        "sec-websocket-key": "eA==",
        "sec-websocket-version": "13",
    }
    with caplog.at_level("INFO"):
        assert client.get("/health", headers=asked).status_code == 200
    told = [record.getMessage() for record in caplog.records if "WebSocket" in record.getMessage()]
    assert told == [
        "a WebSocket client came, and here is HTTP alone; pictures to train on are streamed by "
        "python -m diffusion_art.stream"
    ]
    assert not [record for record in caplog.records if record.name.startswith("uvicorn")]


def test_a_number_in_quotes_is_refused_with_what_was_sent(client):
    for asked in ({"seed": "7"}, {"n": "2"}, {"guidance_scale": "3"}):
        answer = client.post(GENERATIONS, json={"prompt": "red", **asked})
        ((key, value),) = asked.items()
        assert f"'{value}' for '{key}'" in answer.json()["error"]["message"]
