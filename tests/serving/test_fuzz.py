"""What the OpenAPI description allows, what it does not, and what nobody would think of: never a 5xx."""

from __future__ import annotations

import contextlib
import json

import httpx2
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.errors import Unsatisfiable

from diffusion_art.serving.api.schema import CaptionItem, ImageRequest
from diffusion_art.serving.api.sdapi_schema import Txt2Img
from diffusion_art.serving.settings import Limits, Settings
from tests.serving.running import Running, serving

CASES = 1000
QUIET = settings(deadline=None, database=None, suppress_health_check=list(HealthCheck))

json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(st.characters(codec=None), max_size=30),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=10,
)
FIELDS = [*ImageRequest.model_fields, *CaptionItem.model_fields, *Txt2Img.model_fields]


@pytest.fixture(scope="module")
def small(toy_folder):
    """A server that paints in few steps, so that many cases are quick."""
    limits = Limits(max_steps=2, max_n=2, max_captions=2, keep_alive_s=600, header_timeout_s=600)
    with serving(toy_folder, settings=Settings(limits=limits)) as running:
        yield running


def sane(answer: httpx2.Response) -> None:
    assert answer.status_code < 500, answer.text
    if answer.status_code >= 400 and "detail" in answer.json():
        assert answer.json().keys() == {"error", "detail"}
    elif answer.status_code >= 400:
        assert answer.json()["error"].keys() == {"message", "type", "param", "code"}


def fuzz_bodies(running: Running, examples: int) -> None:
    with httpx2.Client(base_url=running.url, trust_env=False, timeout=60) as client:

        @settings(QUIET, max_examples=examples)
        @given(
            path=st.sampled_from(["/v1/images/generations", "/predict", "/sdapi/v1/txt2img"]),
            fields=st.dictionaries(st.sampled_from(FIELDS), json_values, max_size=5),
            prompt=st.none() | st.text(st.characters(codec=None), max_size=50),
            wrapped=st.booleans(),
        )
        def bodies(path, fields, prompt, wrapped):
            body = fields if prompt is None else {"prompt": prompt, **fields}
            content = json.dumps([body] if wrapped else body)
            sane(client.post(path, content=content, headers={"content-type": "application/json"}))

        @settings(QUIET, max_examples=examples // 4)
        @given(content=st.binary(max_size=300), kind=st.sampled_from(["application/json", "text/plain", "", "a/b/c;="]))
        def bytes_of_any_kind(content, kind):
            sane(client.post("/v1/images/generations", content=content, headers={"content-type": kind}))

        bodies()
        bytes_of_any_kind()
        assert client.get("/health").status_code == 200


def test_bodies_of_any_shape(small):
    fuzz_bodies(small, 40)


@pytest.mark.slow
def test_many_bodies_of_any_shape(small):
    fuzz_bodies(small, CASES // 5)


@pytest.mark.slow
@pytest.mark.filterwarnings("default")  # of schemathesis and what it imports
def test_schemathesis(small):
    """Cases made from the OpenAPI description, good ones and bad ones, shared out over its operations."""
    schemathesis = pytest.importorskip("schemathesis")
    schema = schemathesis.openapi.from_url(f"{small.url}/openapi.json")
    operations = [found.ok() for found in schema.get_all_operations()]
    assert len(operations) == 19
    heavy = {"/v1/images/generations", "/predict", "/sdapi/v1/txt2img"}
    done = 0
    for operation in operations:
        share = CASES // 3 if operation.path in heavy else CASES // 40
        for mode in (schemathesis.GenerationMode.POSITIVE, schemathesis.GenerationMode.NEGATIVE):
            strategy = operation.as_strategy(generation_mode=mode)

            @settings(QUIET, max_examples=share // 2 + 1)
            @given(case=strategy)
            def check(case):
                nonlocal done
                answer = case.call()
                done += 1
                assert answer.status_code < 500, case.as_curl_command()
                documented = case.operation.definition.raw["responses"]
                assert str(answer.status_code) in documented or answer.status_code in (404, 405), case.as_curl_command()

            with contextlib.suppress(*([Unsatisfiable] if mode is schemathesis.GenerationMode.NEGATIVE else [])):
                check()  # there may be nothing about an operation to get wrong
    assert done >= CASES
