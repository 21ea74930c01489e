"""A default has one home: what a class or function takes for granted is what `conf/` says, in one of its choices."""

from __future__ import annotations

import inspect
from collections import defaultdict
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from omegaconf import OmegaConf

from diffusion_art.config import config_dir, kind_of
from diffusion_art.diffusion.guidance import tempering
from diffusion_art.diffusion.time_search import search_times
from diffusion_art.runs import Run
from diffusion_art.serving.engine.engine import Engine
from diffusion_art.serving.server import make_server
from diffusion_art.serving.settings import Limits, Settings
from diffusion_art.shards.build.build import build_shards
from diffusion_art.shards.places import RemoteSettings
from diffusion_art.shards.telling import preview
from diffusion_art.streaming.server.settings import Limits as StreamLimits
from diffusion_art.streaming.server.settings import Settings as StreamSettings
from diffusion_art.training.step import TrainingStep

CHOSEN_OVER_DEFAULTS = ("experiment/", "sweep/", "debug/", "hydra/")  # what retunes other files of conf/
FILLS: list[tuple[str, str, Callable[..., Any]]] = [  # (file, node without `_target_`, what takes its keys)
    ("prepare.yaml", "", build_shards),
    ("data/default.yaml", "", build_shards),
    ("data/default.yaml", "build", build_shards),
    ("remote/default.yaml", "", RemoteSettings),
    ("shards.yaml", "", preview),
    ("stream.yaml", "", StreamSettings),
    ("stream.yaml", "limits", StreamLimits),
    ("train.yaml", "", TrainingStep),
    ("train.yaml", "guidance", tempering),
    ("sample.yaml", "", Run.sample),
    ("schedule_search.yaml", "", search_times),
    ("serve.yaml", "", make_server),
    ("serve.yaml", "", Settings),
    ("serve.yaml", "engine", Engine),
    ("serve.yaml", "limits", Limits),
    ("watch.yaml", "", Settings),
]
OTHERWISE = {  # defaults that no file of conf/ gives, and why
    ("UNet", "norm_groups"): "a checkpoint from before the key was trained with it",
    ("Lite0", "stride"): "a checkpoint from before the key was trained with it, and it measures with it",
    ("Lite0", "precision"): "as above",
    ("Muon", "weight_decay"): "the groups of parameters bring it, as optim.weight_decay says",
}


def nodes(node: Any, name: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """(where, node) of every node below that has a `_target_`."""
    if isinstance(node, dict):
        if "_target_" in node:
            yield name, node
        for key, value in node.items():
            yield from nodes(value, f"{name}: {key}")
    elif isinstance(node, list):
        for value in node:
            yield from nodes(value, name)


def filled() -> Iterator[tuple[str, Callable[..., Any], dict[str, Any]]]:
    """(where, callable, keys) of all that `conf/` fills, of this package."""
    files = {file.relative_to(config_dir()).as_posix(): file for file in sorted(config_dir().rglob("*.yaml"))}
    read: dict[str, Any] = {name: OmegaConf.to_container(OmegaConf.load(file)) for name, file in files.items()}
    for name in files:
        if not name.startswith(CHOSEN_OVER_DEFAULTS):
            for where, node in nodes(read[name], name):
                if str(node["_target_"]).startswith("diffusion_art."):
                    yield where, kind_of({"_target_": node["_target_"]}), node
    for name, key, kind in FILLS:
        yield f"{name}: {key}", kind, read[name][key] if key else read[name]


def differing() -> dict[tuple[str, str], str]:
    """Of every default that no file of `conf/` gives, though some give the parameter: what is said where."""
    said: dict[tuple[str, str], dict[str, Any]] = defaultdict(dict)
    defaults: dict[tuple[str, str], Any] = {}
    for where, kind, node in filled():
        for name, parameter in inspect.signature(kind).parameters.items():
            if parameter.default is not parameter.empty and name in node and _is_value(node[name]):
                defaults[kind.__qualname__, name] = parameter.default
                said[kind.__qualname__, name][where] = node[name]
    return {
        key: f"{'.'.join(key)} is {defaults[key]!r} in the code; {places}"
        for key, places in said.items()
        if not any(_same(defaults[key], value) for value in places.values())
    }


def _is_value(value: Any) -> bool:
    """Neither an object of its own nor taken from another key, as `${seed}` is."""
    return not isinstance(value, dict) and "${" not in str(value) and value != "???"


def _same(default: Any, value: Any) -> bool:
    default = list(default) if isinstance(default, tuple) else default
    return default == value and isinstance(default, bool) == isinstance(value, bool)


def test_what_the_code_takes_for_granted_is_what_conf_says():
    found = differing()
    assert not {key: text for key, text in found.items() if key not in OTHERWISE}
    assert found.keys() == OTHERWISE.keys(), "an exception is not needed any longer"


@pytest.mark.parametrize(("file", "key", "kind"), FILLS)
def test_the_nodes_looked_at_fill_what_they_are_said_to(file, key, kind):
    node = OmegaConf.load(config_dir() / file)
    assert set(inspect.signature(kind).parameters) & set(node[key] if key else node)
