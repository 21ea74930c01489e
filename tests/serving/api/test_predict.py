from __future__ import annotations

import base64
import io

import numpy as np
import pytest
import requests
from PIL import Image

from diffusion_art.serving.settings import Settings
from tests.serving.running import serving

CAPTION = "Rembrandt / The Scholar's Study / Dutch Golden Age / interior / 1651"


def placeholder() -> str:
    out = io.BytesIO()
    Image.new("L", (28, 28)).save(out, "PNG")
    return base64.b64encode(out.getvalue()).decode("utf-8")


def floats_of(image: str) -> np.ndarray:
    return np.frombuffer(base64.b64decode(image), dtype=np.float32).reshape(3, 16, 16)


def test_the_tutorials_request_with_its_placeholder_picture(server):
    payload = [{"image": placeholder(), "caption": CAPTION}]
    response = requests.post(f"{server.url}/predict", json=payload)
    response.raise_for_status()
    ((result,),) = response.json().values()
    assert result.keys() == {"image"}
    picture = floats_of(result["image"])
    assert 0 <= picture.min() < picture.max() <= 1


def test_it_is_the_same_picture_as_anywhere_else(client):
    items = [{"caption": "red", "seed": 3}, {"caption": "blue", "seed": 4}]
    first, second = client.post("/predict", json=items).json()["result"]
    for caption, seed, image in (("red", 3, first), ("blue", 4, second)):
        answer = client.post("/v1/images/generations", json={"prompt": caption, "seed": seed}).json()
        with Image.open(io.BytesIO(base64.b64decode(answer["data"][0]["b64_json"]))) as picture:
            expected = np.asarray(picture).transpose(2, 0, 1).astype(int)
        assert np.abs(np.rint(floats_of(image["image"]) * 255).astype(int) - expected).max() <= 1


def test_without_a_seed_every_picture_is_another(client):
    result = client.post("/predict", json=[{"caption": "red"}] * 2).json()["result"]
    assert result[0] != result[1]


def test_what_a_client_leaves_unset_asks_for_nothing(client):
    unset = {"image": None, "seed": "", "size": "", "attributes": None}
    assert client.post("/predict", json=[{"caption": "red", **unset}]).status_code == 200


def test_seed_minus_one_is_any_as_everywhere(client):
    result = client.post("/predict", json=[{"caption": "red", "seed": -1}] * 2).json()["result"]
    assert result[0] != result[1]


def test_the_shape_of_the_floats_is_told_as_eirs_server_tells_it(client):
    picture = {"image": {"type": "image", "shape": [3, 16, 16]}}
    assert client.get("/info").json() == {"inputs": picture, "outputs": picture}


def test_a_list_without_captions_is_told_from_no_list(client):
    for body, said in (([], "a JSON list of one or more"), ({}, "a JSON list, sent as application/json")):
        assert client.post("/predict", json=body).json()["error"]["message"] == f"The body must be {said}."


def test_an_empty_caption_is_any_picture(client):
    assert client.post("/predict", json=[{"caption": ""}]).status_code == 200


@pytest.mark.parametrize(
    ("payload", "param"),
    [
        ([], None),
        ({"caption": "red"}, None),
        ([{"image": "abc"}], "0.caption"),
        ([{"caption": 3}], "0.caption"),
        ([{"caption": "red", "image": 3}], "0.image"),
        ([{"caption": "red"}, {"caption": "red", "captoin": "x"}], "1.captoin"),
        ([{"caption": "red"}] * 33, None),
    ],
)
def test_what_is_no_list_of_captions_is_422(client, payload, param):
    answer = client.post("/predict", json=payload)
    assert answer.status_code == 422
    assert answer.json()["error"]["param"] == param


def test_a_caption_too_long(client):
    answer = client.post("/predict", json=[{"caption": "x" * 4001}])
    assert answer.status_code == 400
    assert answer.json()["error"]["code"] == "prompt_too_long"


def test_large_placeholders_are_read_over_and_huge_ones_refused(client):
    assert client.post("/predict", json=[{"caption": "red", "image": "A" * 1_000_000}]).status_code == 200
    refused = client.post("/predict", json=[{"caption": "red", "image": "A" * 5_000_000}])
    assert (refused.status_code, refused.json()["error"]["code"]) == (413, "body_too_large")


def test_more_than_the_engine_holds_is_not_waited_for(toy_folder):
    with serving(toy_folder, settings=Settings(), max_jobs=4) as small:
        answer = requests.post(f"{small.url}/predict", json=[{"caption": "red"}] * 5)
        assert (answer.status_code, answer.json()["error"]["code"]) == (400, "too_many_pictures")
        assert requests.post(f"{small.url}/predict", json=[{"caption": "red"}] * 4).status_code == 200
