"""The `openai` package, unchanged, against our server."""

from __future__ import annotations

import asyncio
import base64
import io
import threading
from typing import get_args

import httpx2
import openai
import pytest
from openai import AsyncOpenAI, OpenAI
from openai.types import ImageModel
from PIL import Image

from diffusion_art.serving.engine.jobs import Job
from diffusion_art.serving.settings import Settings
from tests.serving.running import serving

TOKEN = "a-token-of-some-length"


@pytest.fixture(scope="module")
def guarded(toy_folder):
    with serving(toy_folder, settings=Settings(tokens=(TOKEN,))) as running:
        yield running


@pytest.fixture
def ai(guarded):
    with OpenAI(base_url=f"{guarded.url}/v1", api_key=TOKEN, max_retries=0, http_client=plain_http()) as ai:
        yield ai


def plain_http() -> httpx2.Client:
    return httpx2.Client(trust_env=False)


def test_generate(ai):
    answer = ai.images.generate(prompt="red", n=2, size="auto", response_format="b64_json", extra_body={"seed": 9})
    assert answer.created > 1_700_000_000
    assert [picture.model_extra for picture in answer.data] == [{"seed": 9}, {"seed": 10}]
    for picture in answer.data:
        with Image.open(io.BytesIO(base64.b64decode(picture.b64_json))) as opened:
            assert opened.size == (16, 16)


def test_the_same_seed_is_the_same_file_and_row_k_the_picture_of_its_own_seed(ai):
    def paint(**extra):
        answer = ai.images.generate(prompt="red", model="gpt-image-1", n=extra.pop("n", 1), extra_body=extra)
        return [picture.b64_json for picture in answer.data]

    assert paint(seed=4) == paint(seed=4)
    four = paint(seed=20, n=4)
    assert len(set(four)) == 4

    def pixels(content: str) -> list[int]:
        with Image.open(io.BytesIO(base64.b64decode(content))) as opened:
            return list(opened.tobytes())

    alone = pixels(paint(seed=22)[0])
    assert max(abs(a - b) for a, b in zip(pixels(four[2]), alone, strict=True)) <= 1


def test_url(ai):
    answer = ai.images.generate(prompt="red", response_format="url", output_format="webp")
    with plain_http() as http:
        found = http.get(answer.data[0].url)
    assert (found.status_code, found.headers["content-type"]) == (200, "image/webp")


@pytest.mark.parametrize(
    "asked",
    [
        {"model": "dall-e-2", "size": "512x512", "n": 1, "response_format": "b64_json"},  # Open WebUI
        {"model": "dall-e-3", "size": "1024x1024", "n": 1, "quality": "standard", "style": "vivid"},  # LibreChat
        {"model": "gpt-image-1", "size": "1536x1024", "quality": "high", "background": "auto", "moderation": "low"},
        {"model": "dall-e-3", "size": "1792x1024", "user": "me"},
    ],
)
def test_what_front_ends_send(ai, asked):
    (picture,) = (answer := ai.images.generate(prompt="red", **asked)).data
    assert answer.size == asked["size"]
    assert answer.model_extra["painted_size"] == "16x16"
    if picture.url is not None:
        assert asked["model"] == "dall-e-3"
        with plain_http() as http:
            content = http.get(picture.url).content
    else:
        content = base64.b64decode(picture.b64_json)
    with Image.open(io.BytesIO(content)) as opened:
        assert "x".join(map(str, opened.size)) == asked["size"]


@pytest.mark.filterwarnings("ignore:deprecated:DeprecationWarning")  # of variations
def test_edits_and_variations(ai):
    picture = io.BytesIO(b"x" * 1_000_000)
    for ask in (lambda: ai.images.edit(image=picture, prompt="red"), lambda: ai.images.create_variation(image=picture)):
        with pytest.raises(openai.APIStatusError) as caught:
            ask()
        assert (caught.value.status_code, caught.value.code) == (501, "not_implemented")


def test_stream(ai):
    kinds = []
    with ai.images.generate(
        prompt="red", stream=True, partial_images=2, extra_body={"num_inference_steps": 9}
    ) as stream:
        for event in stream:
            kinds.append(type(event).__name__)
            assert base64.b64decode(event.b64_json)
            assert (event.size, event.output_format, event.background) == ("16x16", "png", "opaque")
    assert kinds == ["ImageGenPartialImageEvent"] * 2 + ["ImageGenCompletedEvent"]
    assert event.usage.total_tokens == 0


def test_async(guarded):
    async def paint() -> int:
        async with AsyncOpenAI(
            base_url=f"{guarded.url}/v1", api_key=TOKEN, http_client=httpx2.AsyncClient(trust_env=False)
        ) as ai:
            answers = await asyncio.gather(*(ai.images.generate(prompt=str(number)) for number in range(6)))
        return len({answer.data[0].b64_json for answer in answers})

    assert asyncio.run(paint()) == 6


def test_every_model_that_the_package_knows_is_this_one(guarded):
    for name in get_args(ImageModel):
        guarded.studio.orders.check_model(name)


def test_models(ai):
    (listed,) = ai.models.list().data
    assert listed.id == "toy"
    assert ai.models.retrieve("toy").model_extra["size"] == "16x16"
    with pytest.raises(openai.NotFoundError):
        ai.models.retrieve("nope")


@pytest.mark.parametrize(
    ("asked", "kind", "param"),
    [
        ({"prompt": ""}, openai.BadRequestError, "prompt"),
        ({"prompt": "x", "n": 11}, openai.BadRequestError, "n"),
        ({"prompt": "x", "size": "4096x4096"}, openai.BadRequestError, "size"),
        ({"prompt": "x", "model": "sdxl"}, openai.NotFoundError, "model"),
        ({"prompt": "x", "extra_body": {"zzz": 1}}, openai.BadRequestError, "zzz"),
    ],
)
def test_errors_arrive_as_the_clients_own(ai, asked, kind, param):
    with pytest.raises(kind) as caught:
        ai.images.generate(**asked)
    error = caught.value
    assert (error.param, error.type) == (param, "invalid_request_error")
    assert error.code
    assert error.request_id


def test_a_wrong_token(guarded):
    for token in ("wrong", TOKEN[:-1], TOKEN + "x"):
        with (
            OpenAI(base_url=f"{guarded.url}/v1", api_key=token, http_client=plain_http()) as ai,
            pytest.raises(openai.AuthenticationError) as caught,
        ):
            ai.images.generate(prompt="x")
        assert caught.value.code == "invalid_api_key"


@pytest.mark.slow
def test_it_comes_back_by_itself_when_the_queue_is_full(toy_folder):
    """Retry-After is obeyed: refused while one long picture fills the queue, painted when that is gone."""
    with serving(toy_folder, max_jobs=1) as small:
        sampler = small.studio.orders.sampler_of("euler", 200)
        (ticket,) = small.engine.submit([Job("x", 0, sampler)])
        url = f"{small.url}/v1"
        with OpenAI(base_url=url, api_key="none", max_retries=0, http_client=plain_http()) as hasty:
            with pytest.raises(openai.RateLimitError) as caught:
                hasty.images.generate(prompt="x")
            assert caught.value.code == "queue_full"
            assert int(caught.value.response.headers["retry-after"]) >= 1
        threading.Timer(0.2, ticket.cancel).start()
        with OpenAI(base_url=url, api_key="none", max_retries=5, http_client=plain_http()) as patient:
            assert patient.images.generate(prompt="x").data[0].b64_json
