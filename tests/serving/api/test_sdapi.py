"""AUTOMATIC1111's API, asked as its front ends ask it."""

from __future__ import annotations

import base64
import io
import json
import re
import threading
import time

import httpx2
import numpy as np
import pytest
from PIL import Image

from diffusion_art.diffusion.samplers import SAMPLERS
from diffusion_art.runs import load_run
from diffusion_art.serving.api.sdapi_about import sampler_named
from diffusion_art.serving.settings import Settings
from diffusion_art.tensors import to_uint8
from tests.serving.api.test_app import GENERATIONS, pixels_of
from tests.serving.running import serving

TXT2IMG = "/sdapi/v1/txt2img"
TOKENS = ("a-token-of-some-length", "another-token-of-some-length")
OPEN_WEBUI = {"prompt": "red", "batch_size": 1, "width": 512, "height": 512, "steps": 3, "negative_prompt": "blue"}
SILLY_TAVERN = json.loads("""{
    "prompt": "red", "negative_prompt": "", "sampler_name": "DDIM", "scheduler": "automatic", "steps": 2,
    "cfg_scale": 7, "width": 512, "height": 768, "restore_faces": false, "enable_hr": false, "hr_scale": 2,
    "override_settings": {"CLIP_stop_at_last_layers": 1}, "override_settings_restore_afterwards": true, "clip_skip": 1,
    "save_images": true, "send_images": true, "do_not_save_grid": false, "do_not_save_samples": false, "seed": -1
}""")


def told_of(b64: str) -> dict[str, str]:
    with Image.open(io.BytesIO(base64.b64decode(b64))) as picture:
        assert picture.format == "PNG"
        return dict(picture.text)


def parsed(parameters: str) -> tuple[str, str, dict[str, str]]:
    """(prompt, negative prompt, fields), as AUTOMATIC1111's own reader takes them apart."""
    *lines, last = parameters.strip().split("\n")
    fields = dict(re.findall(r'\s*(\w[\w \-/]+):\s*("(?:\\.|[^\\"])+"|[^,]*)(?:,|$)', last))
    split = next((number for number, line in enumerate(lines) if line.startswith("Negative prompt:")), len(lines))
    negative = "\n".join(lines[split:]).removeprefix("Negative prompt:").strip()
    return "\n".join(lines[:split]), negative, fields


def test_a_picture_is_the_one_of_our_own_api_and_says_so(client, toy_folder):
    asked = {"prompt": "red / house", "negative_prompt": "blue", "steps": 3, "cfg_scale": 2, "seed": 5}
    body = client.post(TXT2IMG, json={**asked, "sampler_name": "Euler", "batch_size": 2, "n_iter": 2}).json()
    own = load_run(toy_folder).sample(["red / house"] * 4, seed=5, negative_prompt="blue", guidance_scale=2)
    assert len(body["images"]) == 4
    for picture, expected in zip(body["images"], to_uint8(own), strict=True):
        assert np.abs(pixels_of(picture).astype(int) - expected).max() <= 1
    prompt, negative, fields = parsed(told_of(body["images"][1])["parameters"])
    assert (prompt, negative) == ("red / house", "blue")
    expected = {"Steps": "3", "Sampler": "Euler", "CFG scale": "2", "Seed": "6", "Size": "16x16", "Model": "toy"}
    assert expected.items() <= fields.items()
    info = json.loads(body["info"])
    assert (info["seed"], info["all_seeds"], info["index_of_first_image"]) == (5, [5, 6, 7, 8], 0)
    assert info["infotexts"][1] == told_of(body["images"][1])["parameters"]
    assert body["parameters"]["cfg_scale"] == 2


def test_parameters_stand_first_and_uncompressed(client):
    prompt = "a long prompt " * 40
    body = client.post(TXT2IMG, json={"prompt": prompt, "steps": 1}).json()
    content = base64.b64decode(body["images"][0])
    assert content[33 + 4 : 33 + 8] == b"tEXt"  # the chunk after the header
    assert content[33 + 8 :].startswith(b"parameters\0" + prompt.encode())
    odd = client.post(TXT2IMG, json={"prompt": "赤い家", "steps": 1}).json()
    assert parsed(told_of(odd["images"][0])["parameters"])[0] == "赤い家"


@pytest.mark.parametrize("format", ["jpeg", "webp"])
def test_other_formats_say_it_in_their_user_comment(client, format):
    answer = client.post(GENERATIONS, json={"prompt": "Größe", "seed": 1, "output_format": format}).json()
    with Image.open(io.BytesIO(base64.b64decode(answer["data"][0]["b64_json"]))) as picture:
        comment = picture.getexif().get_ifd(0x8769)[0x9286]
    assert comment.startswith(b"UNICODE\0")
    assert parsed(comment[8:].decode("utf-16-be"))[0] == "Größe"


@pytest.mark.parametrize("asked", [OPEN_WEBUI, SILLY_TAVERN, {"prompt": "red"}, {"steps": 1}])
def test_what_front_ends_send_is_painted(client, asked):
    answer = client.post(TXT2IMG, json=asked)
    assert answer.status_code == 200, answer.text
    pixels = pixels_of(answer.json()["images"][0])
    assert pixels.shape == (asked.get("height", 16), asked.get("width", 16), 3)
    info = json.loads(answer.json()["info"])
    assert (info["width"], info["height"], info["painted_size"]) == (pixels.shape[1], pixels.shape[0], "16x16")


def test_what_a_front_end_leaves_unset_is_the_runs_own(client):
    unset = {"negative_prompt": None, "seed": "", "steps": None, "batch_size": None, "n_iter": None, "cfg_scale": ""}
    answer = client.post(TXT2IMG, json={"prompt": "red", "sampler_name": "", "width": None, **unset})
    assert answer.status_code == 200, answer.text
    told = json.loads(answer.json()["info"])
    assert (len(answer.json()["images"]), told["steps"], told["batch_size"]) == (1, 3, 1)
    assert answer.json()["parameters"]["negative_prompt"] == ""


def test_a_picture_is_enlarged_by_the_scale_that_is_asked_for(client):
    for asked, side in (({}, 32), ({"width": 32, "height": 32, "hr_scale": 1.5}, 48), ({"enable_hr": False}, 16)):
        answer = client.post(TXT2IMG, json={"prompt": "x", "steps": 1, "enable_hr": True, **asked})
        assert pixels_of(answer.json()["images"][0]).shape[:2] == (side, side)
    for asked, status in (
        ({"hr_scale": 1e308}, 422),
        ({"hr_scale": 64, "width": 10**400}, 400),
        ({"hr_scale": 64}, 200),
        ({"enable_hr": False, "hr_scale": 0}, 200),  # what is not asked for is not read
    ):
        answer = client.post(TXT2IMG, json={"prompt": "x", "steps": 1, "enable_hr": True, **asked})
        assert answer.status_code == status, answer.text


def test_any_seed_is_another_picture_and_can_be_painted_again(client):
    seeds = [json.loads(client.post(TXT2IMG, json={"prompt": "red", "seed": -1}).json()["info"])["seed"] for _ in "ab"]
    assert seeds[0] != seeds[1]
    first, again = (client.post(TXT2IMG, json={"prompt": "red", "seed": seeds[0]}).json()["images"] for _ in "ab")
    assert first == again


def test_what_front_ends_ask_at_their_start(client):
    samplers = client.get("/sdapi/v1/samplers").json()
    assert [each["name"] for each in samplers] == [kind.title for kind in SAMPLERS.values()]
    assert client.get("/sdapi/v1/options").json()["sd_model_checkpoint"] == "toy"
    (model,) = client.get("/sdapi/v1/sd-models").json()
    assert (model["title"], model["model_name"]) == ("toy", "toy")
    assert "/" not in model["filename"]
    assert client.get("/sdapi/v1/schedulers").json()[0]["label"] == "Automatic"
    assert client.get("/sdapi/v1/upscalers").json()[0]["name"] == "None"
    lists = ("latent-upscale-modes", "sd-vae", "sd-modules", "loras", "face-restorers", "script-info", "extensions")
    for listed in (*lists, "realesrgan-models"):
        assert client.get(f"/sdapi/v1/{listed}").json() == []
    assert client.get("/sdapi/v1/scripts").json() == {"txt2img": [], "img2img": []}
    assert client.get("/sdapi/v1/embeddings").json() == {"loaded": {}, "skipped": {}}
    for told in ("cmd-flags", "memory"):
        assert client.get(f"/sdapi/v1/{told}").json() == {}
    for done in ("refresh-checkpoints", "refresh-loras", "refresh-vae", "refresh-embeddings", "unload-checkpoint"):
        assert client.post(f"/sdapi/v1/{done}").is_success
    assert client.post("/sdapi/v1/options", json={"sd_model_checkpoint": "toy", "sd_vae": "x"}).status_code == 200
    name, digest = model["title"], model["hash"]
    files = (model["filename"], f"{name}.safetensors", f"{name}.safetensors [{digest}]", f"moved.ckpt [{digest}]")
    for ours in (digest, f"{name} [{digest}]", f"{name} [0123]", *files):
        assert client.post("/sdapi/v1/options", json={"sd_model_checkpoint": ours}).status_code == 200
    for other in ("sdxl", "sdxl.safetensors [0123456789]", f"{name}.zip", ["toy"], 7):
        assert client.post("/sdapi/v1/options", json={"sd_model_checkpoint": other}).status_code == 404
    assert client.get("/controlnet/model_list").json() == {"model_list": []}
    assert client.get("/controlnet/control_types").json() == {"control_types": {}}
    assert client.get("/controlnet/version").status_code == 404


@pytest.mark.parametrize(
    ("name", "ours"),
    [
        *[(kind.title, ours) for ours, kind in SAMPLERS.items()],
        *[("Euler", "euler"), ("Euler a", "ancestral"), ("Heun", "heun"), ("DPM++ 2M", "dpmpp_2m"), ("UniPC", "unipc")],
        *[("DDIM", "ddim"), ("LCM", "consistency"), ("k_dpmpp_2m", "dpmpp_2m"), ("dpmpp_2m", "dpmpp_2m")],
        *[("DPM++ 2M Karras", "dpmpp_2m"), ("k_euler_a", "ancestral"), ("euler", "euler"), ("Automatic", None)],
        *[("", None), (None, None)],
    ],
)
def test_samplers_by_their_names(name, ours):
    assert sampler_named(name) == ours


@pytest.mark.parametrize(
    ("asked", "status", "told"),
    [
        ({"prompt": "x", "sampler_name": "DPM++ SDE"}, 404, "Sampler 'DPM++ SDE' not found; choose one of LCM, DDIM, "),
        ({"prompt": "x", "steps": 0}, 422, "'steps'"),
        ({"prompt": "x", "steps": 10**9}, 400, "At most 200 steps"),
        ({"prompt": "x", "batch_size": 4, "n_iter": 3}, 400, "At most 10 pictures"),
        ({"prompt": "x", "batch_size": 10**4000}, 400, "At most 10 pictures"),
        ({"prompt": "x", "width": 10**4000}, 400, "at most 2048 pixels"),
        ({"prompt": "x", "width": 4096}, 400, "16 to 2048 pixels"),
        ({"prompt": "x", "cfg_scale": 99}, 422, "'cfg_scale'"),
        ({"prompt": "x" * 4001}, 400, "4,000 are the most"),
        ({"prompt": "\ud800"}, 422, "'prompt'"),
        ({"prompt": "x", "override_settings": {"sd_model_checkpoint": "sdxl"}}, 404, "There is no model 'sdxl'"),
        ([], 422, "must be a JSON object"),
    ],
)
def test_errors_are_of_its_shape(client, asked, status, told):
    answer = client.post(TXT2IMG, content=json.dumps(asked), headers={"content-type": "application/json"})
    assert answer.status_code == status, answer.text
    assert told in answer.json()["detail"]
    assert answer.json().keys() == {"error", "detail"}


def test_odd_settings_do_not_break_the_answer(client):
    asked = {"prompt": "x", "steps": 1, "override_settings": {"a": "\ud800", "b": float("nan")}}
    assert client.post(TXT2IMG, content=json.dumps(asked), headers={"content-type": "application/json"}).is_success


@pytest.mark.parametrize("path", ["img2img", "extra-single-image", "interrogate"])
def test_what_starts_from_a_picture_is_not_here(client, path):
    answer = client.post(f"/sdapi/v1/{path}", content=b"x" * 1000)
    assert answer.status_code == 501
    assert "paints from captions only" in answer.json()["detail"]
    assert client.get("/sdapi/v1/nowhere").json()["detail"].startswith("There is nothing at /sdapi/v1/nowhere")


def test_png_info(client):
    picture = client.post(TXT2IMG, json={"prompt": "red", "steps": 1}).json()["images"][0]
    for sent in (picture, f"data:image/png;base64,{picture}"):
        found = client.post("/sdapi/v1/png-info", json={"image": sent}).json()
        assert found["info"] == told_of(picture)["parameters"]
        assert found["items"]["prompt"] == "red"
    for wrong in (
        "",
        "====",
        "é",
        base64.b64encode(b"GIF89a").decode(),
        base64.b64encode(b"\x89PNG\r\n\x1a\n").decode(),
    ):
        assert client.post("/sdapi/v1/png-info", json={"image": wrong}).status_code == 400


# ---------------------------------------------------------------------- on its way


def until(condition, *, seconds: float = 20.0):
    end = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < end
        time.sleep(0.005)
    return found


def painting(client, answers: list, **asked) -> threading.Thread:
    thread = threading.Thread(target=lambda: answers.append(client.post(TXT2IMG, json={"prompt": "red", **asked})))
    thread.start()
    return thread


def test_progress_and_interrupt(client):
    idle = client.get("/sdapi/v1/progress").json()
    assert (idle["progress"], idle["state"]["job_count"], idle["current_image"]) == (0, 0, None)
    answers: list[httpx2.Response] = []
    thread = painting(client, answers, steps=200, batch_size=3, sampler_name="Heun")
    seen = until(lambda: (now := client.get("/sdapi/v1/progress").json())["current_image"] and now)
    assert 0 < seen["progress"] < 1
    assert (seen["state"]["job_count"], seen["state"]["sampling_steps"]) == (3, 200)
    assert seen["eta_relative"] > 0
    assert pixels_of(seen["current_image"]).shape == (16, 16, 3)
    assert client.get("/sdapi/v1/progress?skip_current_image=true").json()["current_image"] is None
    assert client.post("/sdapi/v1/interrupt").json() == {}
    thread.join()
    assert answers[0].status_code == 200
    images, info = answers[0].json()["images"], json.loads(answers[0].json()["info"])
    assert len(images) == len(info["all_seeds"]) == len(info["infotexts"]) < 3
    assert client.get("/sdapi/v1/progress").json()["progress"] == 0


def test_tokens_and_whose_pictures_are_seen(toy_folder):
    with serving(toy_folder, settings=Settings(tokens=TOKENS)) as own:
        mine, theirs, nobody, wrong = (
            httpx2.Client(base_url=own.url, trust_env=False, timeout=60, auth=auth)
            for auth in (("user", TOKENS[0]), ("", TOKENS[1]), None, ("user", "wrong"))
        )
        with mine, theirs, nobody, wrong:
            for client in (nobody, wrong):
                refused = client.get("/sdapi/v1/options")
                assert (refused.status_code, refused.headers["www-authenticate"]) == (401, "Bearer")
                assert "oken" in refused.json()["detail"]
            answers: list[httpx2.Response] = []
            thread = painting(mine, answers, steps=200, sampler_name="Heun")
            until(lambda: mine.get("/sdapi/v1/progress").json()["progress"])
            assert theirs.get("/sdapi/v1/progress").json()["progress"] == 0
            theirs.post("/sdapi/v1/interrupt")
            assert mine.get("/sdapi/v1/progress").json()["progress"] > 0
            mine.post("/sdapi/v1/interrupt")
            thread.join()
            bearer = {"authorization": f"Bearer {TOKENS[0]}"}
            assert nobody.get("/sdapi/v1/options", headers=bearer).status_code == 200
            for odd in ("Basic", "Basic é", "Basic ====", "Basic " + base64.b64encode(TOKENS[0].encode()).decode()):
                headers = {"authorization": odd.encode()}
                assert nobody.get("/sdapi/v1/options", headers=headers).status_code == 401
