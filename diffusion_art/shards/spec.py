"""Which shards are meant: one folder or address, or a list of them with weights, as `data.path` says it."""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, TypeAlias

from diffusion_art.errors import UserError
from diffusion_art.shards.places import Address, Place, RemoteSettings, absolute, place_of

ShardSpec: TypeAlias = "str | Path | Address | Sequence[str | Path | Mapping[str, Any] | Component]"


@dataclass(frozen=True)
class Component:
    """One folder of a specification; `weight` None: as much as it has samples.

    `caption_template` makes its captions of the samples' columns, None leaves them as they are stored.
    """

    path: Place
    weight: float | None = None
    caption_template: str | None = None


def components_of(spec: ShardSpec) -> tuple[Component, ...]:
    """`spec` in its one plain form. UserError when it is none, names a folder twice or weighs only some of them."""
    entries = [spec] if isinstance(spec, str | Path | Address) else list(spec)
    if not entries:
        raise UserError("data.path is an empty list; name at least one folder of shards, as data.path=data/NAME")
    components = tuple(_component(entry) for entry in entries)
    folders = [absolute(component.path) for component in components]
    for number, folder in enumerate(folders):
        if folder in folders[:number]:
            raise UserError(f"data.path names {folder} twice; name it once, with the sum of the weights")
    bare = [component.path for component in components if component.weight is None]
    if bare and len(bare) < len(components):
        raise UserError(
            f"data.path has weights for some folders and none for {bare[0]}; give every folder a weight, as "
            f"{{path: {bare[0]}, weight: 1}}, or none of them"
        )
    return components


def with_template(spec: ShardSpec, caption_template: str | None) -> tuple[Component, ...]:
    """`spec`, its folders with this template, but for those that have one of their own."""
    return tuple(
        replace(component, caption_template=caption_template) if component.caption_template is None else component
        for component in components_of(spec)
    )


def with_remote(spec: ShardSpec, settings: RemoteSettings) -> tuple[Component, ...]:
    """`spec`, its addresses read by these settings."""
    components = components_of(spec)
    return tuple(replace(component, path=place_of(component.path, settings)) for component in components)


def arguments_of(components: Sequence[Component]) -> list[str]:
    """`components` on a command line, their paths absolute."""
    weights = [repr(component.weight) for component in components if component.weight is not None]
    folders = [str(absolute(component.path)) for component in components]
    remote = next((c.path.settings for c in components if isinstance(c.path, Address)), None)
    copied = ["--remote", json.dumps(asdict(remote))] if remote is not None else []
    templates = [component.caption_template for component in components]
    told = ["--captions", json.dumps(templates)] if any(template is not None for template in templates) else []
    return [*folders, *(["--weights", *weights] if weights else []), *told, *copied]


def spec_of_arguments(
    folders: Sequence[str], weights: Sequence[float] | None, captions: str | None = None, remote: str | None = None
) -> ShardSpec:
    """The specification that `arguments_of` wrote. UserError when there are not as many weights as folders."""
    if weights is not None and len(weights) != len(folders):
        raise UserError(f"--weights has {len(weights)} numbers for {len(folders)} folders; give one for each")
    templates = json.loads(captions) if captions is not None else [None] * len(folders)
    shares = weights if weights is not None else [None] * len(folders)
    settings = RemoteSettings(**json.loads(remote)) if remote is not None else None
    whole = zip(folders, shares, templates, strict=True)
    return [Component(place_of(folder, settings), weight, template) for folder, weight, template in whole]


def _component(entry: Any) -> Component:
    if isinstance(entry, Component):
        entry = {"path": entry.path, "weight": entry.weight, "caption_template": entry.caption_template}
    if isinstance(entry, str | Path | Address):
        return Component(place_of(entry))
    if not isinstance(entry, Mapping) or not {"path"} <= set(entry) <= {"path", "weight", "caption_template"}:
        raise UserError(
            f"data.path has the entry {entry!r}; each is a folder, or {{path: FOLDER, weight: NUMBER}}, with a "
            "caption_template of its own if you like"
        )
    path, weight, template = entry["path"], entry.get("weight"), entry.get("caption_template")
    if not isinstance(path, str | Path | Address) or not str(path):
        raise UserError(f"data.path has the entry {entry!r}, whose path is no folder; give {{path: data/NAME, ...}}")
    if not isinstance(template, str | None):
        raise UserError(f"data.path gives {path} the caption_template {template!r}; it is a text such as '{{title}}'")
    if weight is None:
        return Component(place_of(path), None, template)
    if isinstance(weight, bool) or not isinstance(weight, int | float) or not (0 < weight < math.inf):
        raise UserError(f"data.path gives {path} the weight {weight!r}; a weight is a number above 0")
    return Component(place_of(path), float(weight), template)
