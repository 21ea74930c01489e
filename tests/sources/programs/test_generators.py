"""`sources/programs/generators.py`: the prompt in what programs note of the pictures that they generate."""

from __future__ import annotations

import json
from typing import Any

import pytest

from diffusion_art.sources.programs.generators import prompt_of

SETTINGS = "Steps: 20, Sampler: Euler a, CFG scale: 7, Seed: 1"


def graph(positive: Any, **more: Any) -> str:
    """ComfyUI's, with a sampler whose `positive` is that link."""
    nodes = {
        "3": {"class_type": "KSampler", "inputs": {"seed": 1, "positive": positive, "negative": ["7", 0]}},
        "6": {"class_type": "CLIPTextEncode", "inputs": {"text": "a castle", "clip": ["4", 1]}},
        "7": {"class_type": "CLIPTextEncode", "inputs": {"text": "bad eyes", "clip": ["4", 1]}},
    }
    return json.dumps({**nodes, **more})


@pytest.mark.parametrize(
    ("text", "prompt"),
    [
        (f"a castle\nNegative prompt: bad, ugly\nworse\n{SETTINGS}", "a castle"),
        (f"a castle,\nat night\n{SETTINGS}", "a castle,\nat night"),
        (f"a castle\n-bad\n{SETTINGS}", "a castle"),  # Draw Things
        ("Prompt: a castle\nSeed: 1\nGuidance Scale: 7.5\nNegative Prompt: bad", "a castle"),  # Easy Diffusion
        ('"a castle" -s 50 -S 123 -W 512 -C 7.5 -A k_lms', "a castle"),  # InvokeAI 2
        ('{"image": {"prompt": [{"prompt": "a castle", "weight": 1}], "seed": 1}}', "a castle"),
        ('{"positive_prompt": "a castle", "seed": 1}', "a castle"),
        ('{"prompt": "a castle", "negative_prompt": "", "metadata_scheme": "fooocus"}', "a castle"),
        ('{"sui_image_params": {"prompt": "a castle", "model": "x"}}', "a castle"),
        (graph(["6", 0]), "a castle"),
        (graph(["8", 0], **{"8": {"class_type": "FluxGuidance", "inputs": {"conditioning": ["6", 0]}}}), "a castle"),
        (graph(["9", 0], **{"9": {"class_type": "CLIPTextEncode", "inputs": {"text": ["5", 0]}},
                            "5": {"class_type": "PrimitiveString", "inputs": {"value": "a castle"}}}), "a castle"),
        (graph(["6", 0], **{"6": {"class_type": "Reroute", "inputs": {"conditioning": ["6", 0]}}}), None),  # a circle
        ("a castle --ar 3:2 --v 6.0 --style raw Job ID: 0d1f-44", "a castle"),  # Midjourney
        ('"Untitled" -Monet', None),
        ("a castle -- a ruin", None),
        ("Prompt: a word of a poem\nthat goes on", None),
        ('{"prompt": "who lives here?", "answer": "a king"}', None),
        ("[" * 5000, None),
        ("Steps: 20 of them lead up", None),
    ],
)  # fmt: skip
def test_the_prompt_alone_is_the_caption(text: str, prompt: str | None) -> None:
    assert prompt_of(text) == (text if prompt is None else prompt)
