"""The prompt in what programs that generate pictures note of them, beside the pictures or within.

a castle                        Negative prompt: ... / Steps: 20, Sampler: ...     web interfaces of Stable Diffusion
Prompt: a castle                Seed: 1                                             Easy Diffusion
"a castle" -s 50 -S 123                                                             InvokeAI 2 (`Dream`)
{"positive_prompt": ...}  {"image": {"prompt": ...}}                                InvokeAI
{"prompt": ...}  {"sui_image_params": {"prompt": ...}}                              Fooocus, SwarmUI, NovelAI
{"3": {"class_type": "KSampler", "inputs": {"positive": ["6", 0]}}, ...}            ComfyUI's graph
a castle --ar 3:2 --v 6 Job ID: ...                                                 Midjourney
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

from diffusion_art.captions.columns import unique

# Draw Things writes the negative prompt as a line that begins with a dash, before the settings.
_NEGATIVE = re.compile(r"^(?:Negative prompt:|-(?! ))", re.MULTILINE)
_GENERATED = re.compile(r"^Steps: \d+, (?:Sampler|Schedule type|CFG scale|Seed|Size):", re.MULTILINE)
_PROMPT_LINE = re.compile(r"[Pp]rompt: (.*)\n")
_SEED_LINE = re.compile(r"^[Ss]eed: \d+", re.MULTILINE)
_DREAM = re.compile(r'"([^"]*)" (?=(?:.* )?-[sS] ?\d)(?:-[A-Za-z] ?\S+(?: |$))+')  # steps or a seed are among them
_JOB = re.compile(r"\sJob ID: \S+$")
_PARAMETERS = re.compile(r"\s--[a-z]")  # of Midjourney
_OF_A_NODE = ("text", "text_g", "clip_l", "t5xxl", "prompt", "string", "value", "positive")
_LINKS = ("positive", "guider", "conditioning", "conditioning_1", "conditioning_2", "conditioning_to", "samples")


def prompt_of(text: str) -> str:
    """The prompt in the settings of a generated picture; other text as it is."""
    if (settings := _GENERATED.search(text)) is not None:
        return _NEGATIVE.split(text[: settings.start()], maxsplit=1)[0].strip()
    plain = text.strip()
    if (line := _PROMPT_LINE.match(plain)) and _SEED_LINE.search(plain):
        return line[1].strip()
    if dream := _DREAM.fullmatch(plain):
        return dream[1].strip()
    if job := _JOB.search(plain):
        return _PARAMETERS.split(plain[: job.start()], maxsplit=1)[0].strip()
    return _in_json(plain) or text


def _in_json(text: str) -> str:
    """The prompt in an object that such a program wrote; "" in another, and in other text."""
    try:
        row = json.loads(text) if text.startswith("{") else None
        return _prompt_in(row) if isinstance(row, dict) else ""
    except (ValueError, RecursionError):
        return ""


def _prompt_in(row: dict[str, Any]) -> str:
    if any(isinstance(node, dict) and "class_type" in node for node in row.values()):
        return _of_graph(row)
    if isinstance(inner := row.get("sui_image_params") or row.get("image"), dict):
        return _prompt_in(inner)
    prompt = row.get("positive_prompt") or row.get("prompt")
    if isinstance(prompt, list):  # InvokeAI 2: weighted parts
        parts = (part.get("prompt") if isinstance(part, dict) else part for part in prompt)
        return ", ".join(part for part in parts if isinstance(part, str))
    settings = {"seed", "steps", "model", "negative_prompt", "negativeprompt", "app_version", "sampler", "uc"}
    return prompt if isinstance(prompt, str) and not settings.isdisjoint(row) else ""


def _of_graph(nodes: dict[str, Any]) -> str:
    """What is linked to the input `positive` of a sampler in ComfyUI's graph, or to its guider."""
    inputs = {name: node["inputs"] for name, node in nodes.items() if _has_inputs(node)}
    for link in ("positive", "guider"):
        starts = [given[link] for given in inputs.values() if isinstance(given.get(link), list)]
        if texts := unique([text for start in starts for text in _texts_at(start, inputs, set())]):
            return texts[0]
    return ""


def _has_inputs(node: Any) -> bool:
    return isinstance(node, dict) and isinstance(node.get("inputs"), dict)


def _texts_at(link: Any, inputs: dict[str, Any], seen: set[str]) -> Iterator[str]:
    """The texts of the node that a link leads to, or of those behind it."""
    name = str(link[0]) if isinstance(link, list) and link else ""
    if name in seen or name not in inputs:
        return
    seen.add(name)
    for key in _OF_A_NODE:
        value = inputs[name].get(key)
        if isinstance(value, str):
            yield value
        elif isinstance(value, list):
            yield from _texts_at(value, inputs, seen)
    for key in _LINKS:
        yield from _texts_at(inputs[name].get(key), inputs, seen)
