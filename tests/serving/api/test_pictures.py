"""Sizes that OpenAI's clients send and the model does not paint."""

from __future__ import annotations

import base64
import io

import httpx2
import numpy as np
import pytest
from PIL import Image

from diffusion_art.errors import UserError
from diffusion_art.serving.api.errors import ApiError
from diffusion_art.serving.orders import Size, size_of
from diffusion_art.serving.settings import Limits, Settings
from tests.serving.api.test_app import GENERATIONS, events_of, pixels_of
from tests.serving.running import serving


def paint(client, **asked) -> dict:
    answer = client.post(GENERATIONS, json={"prompt": "red", "seed": 3, "num_inference_steps": 1, **asked})
    assert answer.status_code == 200, answer.text
    return answer.json()


def test_a_whole_factor_makes_squares_of_the_pixels(client):
    own, large = paint(client), paint(client, size="512x512")
    assert (own["size"], own["painted_size"]) == ("16x16", "16x16")
    assert (large["size"], large["painted_size"]) == ("512x512", "16x16")
    pixels = pixels_of(large["data"][0]["b64_json"])
    assert (pixels == pixels_of(own["data"][0]["b64_json"]).repeat(32, 0).repeat(32, 1)).all()


@pytest.mark.parametrize(("size", "side", "left", "top"), [("1792x1024", 1024, 384, 0), ("40x72", 40, 0, 16)])
def test_other_shapes_stand_whole_on_white(client, size, side, left, top):
    pixels = pixels_of(paint(client, size=size)["data"][0]["b64_json"])
    width, height = map(int, size.split("x"))
    assert pixels.shape == (height, width, 3)
    picture = pixels[top : top + side, left : left + side]
    margins = np.ones(pixels.shape[:2], bool)
    margins[top : top + side, left : left + side] = False
    assert (pixels[margins] == 255).all()
    square = pixels_of(paint(client, size=f"{side}x{side}")["data"][0]["b64_json"])
    assert (picture == square).all()


def test_what_is_no_whole_factor_is_resampled():
    pixels = np.zeros((16, 16, 3), np.uint8)
    pixels[:, 8:] = 255
    filled = Size(40, 40, (16, 16)).fill(pixels)
    assert len(np.unique(filled)) > 2  # an edge of many greys
    assert len(np.unique(Size(48, 48, (16, 16)).fill(pixels))) == 2
    assert Size(16, 16, (16, 16)).fill(pixels) is pixels


def test_a_model_of_several_sizes_paints_the_nearest_shape():
    others = [(12, 20), (16, 16), (20, 12)]

    def found(asked: str | None, sizes: str = "any") -> Size:
        return size_of(asked, painted_px=16, pictures=1, limits=Limits(sizes=sizes), others=others)

    assert found("20x12", "exact") == Size(20, 12, (20, 12))
    assert not found("20x12").enlarged
    assert found(None) == Size(16, 16, (16, 16))
    assert found("1200x720") == Size(1200, 720, (20, 12))
    assert found("640x1000").painted == (12, 20)
    pixels = np.full((12, 20, 3), 7, np.uint8)
    assert (found("1200x720").fill(pixels) == 7).all()
    margins = found("200x130").fill(pixels)
    assert margins.shape == (130, 200, 3)
    assert (margins[:5] == 255).all()
    assert (margins[5:125] == 7).all()
    with pytest.raises(ApiError, match="paints 12x20, 16x16, 20x12, not '16x20'"):
        found("16x20", "exact")


def test_the_file_says_what_was_painted(client):
    content = base64.b64decode(paint(client, size="64x64")["data"][0]["b64_json"])
    with Image.open(io.BytesIO(content)) as picture:
        last = picture.text["parameters"].splitlines()[-1]
    assert "Size: 16x16" in last
    assert "Hires resize: 64x64, Hires upscaler: Nearest" in last


def test_a_stream_is_enlarged_too(client):
    asked = {"prompt": "red", "size": "64x64", "stream": True, "partial_images": 1, "num_inference_steps": 4}
    events = events_of(client.post(GENERATIONS, json=asked).text)
    assert len(events) == 2
    for _, data in events:
        assert (data["size"], data["painted_size"]) == ("64x64", "16x16")
        assert pixels_of(data["b64_json"]).shape == (64, 64, 3)


@pytest.mark.parametrize(
    "asked", [{"size": "8x512"}, {"size": "2049x16"}, {"size": "512x512x3"}, {"size": "512"}, {"size": "٥١٢x512"}]
)
def test_sizes_that_are_refused(client, asked):
    answer = client.post(GENERATIONS, json={"prompt": "x", **asked})
    assert (answer.status_code, answer.json()["error"]["code"]) == (400, "invalid_size")


def test_what_is_no_size_is_told_what_one_is(client):
    error = client.post(GENERATIONS, json={"prompt": "x", "size": "16:9"}).json()["error"]
    assert error["message"] == "A size is 'WIDTHxHEIGHT' with sides of at most 2048 pixels, or 'auto', not '16:9'."


def test_an_answer_has_so_many_pixels_at_most(client):
    answer = client.post(GENERATIONS, json={"prompt": "x", "size": "2048x2048", "n": 6})
    assert answer.json()["error"]["code"] == "invalid_size"
    assert "6 pictures of 2048x2048 are more than" in answer.json()["error"]["message"]


def test_exact_takes_the_models_own_only(toy_folder):
    settings = Settings(limits=Limits(sizes="exact"))
    with serving(toy_folder, settings=settings) as own, httpx2.Client(base_url=own.url, trust_env=False) as client:
        assert paint(client, size="16x16")["size"] == "16x16"
        refused = client.post(GENERATIONS, json={"prompt": "x", "size": "512x512"})
        assert refused.json()["error"]["message"] == "This model paints 16x16, not '512x512': say '16x16' or 'auto'."
        assert client.get("/v1/models").json()["data"][0]["limits"]["sizes"] == "exact"
        theirs = client.post("/sdapi/v1/txt2img", json={"prompt": "x", "width": 512, "height": 512})
        assert theirs.status_code == 400
        assert "paints 16x16" in theirs.json()["detail"]


def test_a_word_that_is_no_rule_for_sizes():
    with pytest.raises(UserError, match=r"limits\.sizes=some must be one of any, exact"):
        Limits(sizes="some")
