"""Which shards are meant: one folder, or a list of them with weights, as `data.path` says it."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

from diffusion_art.errors import UserError

ShardSpec: TypeAlias = "str | Path | Sequence[str | Path | Mapping[str, Any] | Component]"


@dataclass(frozen=True)
class Component:
    """One folder of a specification; `weight` None: as much as it has samples."""

    path: Path
    weight: float | None = None


def components_of(spec: ShardSpec) -> tuple[Component, ...]:
    """`spec` in its one plain form. UserError when it is none, names a folder twice or weighs only some of them."""
    entries = [spec] if isinstance(spec, str | Path) else list(spec)
    if not entries:
        raise UserError("data.path is an empty list; name at least one folder of shards, as data.path=data/NAME")
    components = tuple(_component(entry) for entry in entries)
    folders = [component.path.resolve() for component in components]
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


def arguments_of(components: Sequence[Component]) -> list[str]:
    """`components` on a command line, their paths absolute."""
    weights = [repr(component.weight) for component in components if component.weight is not None]
    folders = [str(component.path.resolve()) for component in components]
    return [*folders, *(["--weights", *weights] if weights else [])]


def spec_of_arguments(folders: Sequence[str], weights: Sequence[float] | None) -> ShardSpec:
    """The specification that `arguments_of` wrote. UserError when there are not as many weights as folders."""
    if weights is None:
        return folders
    if len(weights) != len(folders):
        raise UserError(f"--weights has {len(weights)} numbers for {len(folders)} folders; give one for each")
    return [Component(Path(folder), weight) for folder, weight in zip(folders, weights, strict=True)]


def _component(entry: Any) -> Component:
    if isinstance(entry, Component):
        entry = {"path": entry.path, "weight": entry.weight}
    if isinstance(entry, str | Path):
        return Component(Path(entry).expanduser())
    if not isinstance(entry, Mapping) or not {"path"} <= set(entry) <= {"path", "weight"}:
        raise UserError(f"data.path has the entry {entry!r}; each is a folder, or {{path: FOLDER, weight: NUMBER}}")
    path, weight = entry["path"], entry.get("weight")
    if not isinstance(path, str | Path) or not str(path):
        raise UserError(f"data.path has the entry {entry!r}, whose path is no folder; give {{path: data/NAME, ...}}")
    if weight is None:
        return Component(Path(path).expanduser())
    if isinstance(weight, bool) or not isinstance(weight, int | float) or not (0 < weight < math.inf):
        raise UserError(f"data.path gives {path} the weight {weight!r}; a weight is a number above 0")
    return Component(Path(path).expanduser(), float(weight))
