"""From yaml to objects: `build` makes what a config node describes, from an allow-list of classes only.

A config can come out of a checkpoint that somebody else wrote, and Hydra's `instantiate` will call whatever
`_target_` names. So every target is checked twice before anything is built: by its dotted path, and, once
found, by the module it was really defined in (`diffusion_art.sample.os.system` passes the first check only).
Packages of one's own are on the list where `$DIFFUSION_ART_PARTS` names them, or where what is installed does.
"""

from __future__ import annotations

import importlib
import os
import re
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from importlib.metadata import entry_points
from inspect import isclass, isfunction
from pathlib import Path
from typing import Any, cast

import hydra.utils
from hydra.errors import InstantiationException
from omegaconf import DictConfig, ListConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from diffusion_art.errors import UserError, first_line, passed_through
from diffusion_art.extras import install_command

OF_TRAINING = ("averages.ema", "muon", "noise", "optim", "run.csv_logger", "run.trackers", "step_profile", "terms")
OWN_PACKAGES = tuple(
    f"diffusion_art.{part}."
    for part in (
        *("diffusion", "models", "sources", "data", "callbacks", "evaluation.metrics"),
        *(f"training.{name}" for name in OF_TRAINING),
        "experiments",
    )
)
PIP_NAMES = {"open_clip": "open_clip_torch", "PIL": "pillow", "diffusion_art": "diffusion-art"}  # unlike the module's
LIBRARY_PACKAGES = (
    "lightning.pytorch.callbacks.",
    "lightning.pytorch.loggers.",
    "lightning.pytorch.profilers.",
    "optuna.pruners.",
    "optuna.samplers.",
)
LIBRARY_HOMES = ("lightning.pytorch.", "torch.optim.", "optuna.")  # where these are defined
TRAINER = "lightning.pytorch.Trainer"
OPTIMIZER = re.compile(r"torch\.optim\.\w+")
PARTS = "DIFFUSION_ART_PARTS"  # packages and modules of one's own, with commas between them
PARTS_GROUP = "diffusion_art.parts"  # entry points by which an installed package names those that it brings

_MOVED = {  # modules of before, where their classes stand now, and those that older configs name
    ("callbacks.agreement", "callbacks.peers"): "RankAgreement",
    ("callbacks.progress", "callbacks.throughput"): "Progress",
    ("callbacks.rate", "callbacks.throughput"): "LearningRate",
    ("diffusion.objective", "experiments.soft_min_snr"): "SoftMinSNR",
    ("diffusion.predictions", "diffusion.denoiser"): "Epsilon Flow V X0",
    ("diffusion.predictions", "experiments.edm"): "Edm",
    ("diffusion.reconstruction", "diffusion.objective"): "Reconstruction",
    ("diffusion.times", "diffusion.objective"): "LogNormal LogitNormal Stops Stratified Uniform",
    ("evaluation.metrics.clip_score", "evaluation.metrics.clip"): "ClipScore",
    ("evaluation.metrics.cmmd", "evaluation.metrics.clip"): "ClipDiscrepancy",
    ("evaluation.metrics.coverage", "evaluation.metrics.by_neighbours"): "Coverage",
    ("evaluation.metrics.density", "evaluation.metrics.by_neighbours"): "Density",
    ("evaluation.metrics.precision", "evaluation.metrics.by_neighbours"): "Precision",
    ("evaluation.metrics.recall", "evaluation.metrics.by_neighbours"): "Recall",
    ("experiments.perceptual", "training.terms.perceptual"): "Perceptual",
    ("models.alignment", "training.terms.alignment"): "Alignment",
    ("models.contrastive", "models.clip_to_train"): "Contrastive",
    ("sources.folder", "sources.folder.folder"): "ImageFolder",
    ("sources.hub", "sources.parquet.hub"): "WikiArt",
    ("sources.parquet", "sources.parquet.parquet"): "Parquet",
    ("sources.records", "sources.folder.records"): "Records",
    ("sources.tars", "sources.tars.tars"): "Tars",
    ("training.csv_logger", "training.run.csv_logger"): "RunCSVLogger",
    ("training.ema", "training.averages.ema"): "Ema",
    ("training.noise", "experiments.immiscible"): "Nearest Assigned",
    ("training.trackers", "training.run.trackers"): "RunMLFlow RunTrackio RunWandb",
}
MOVED = {  # where a class stands that older configs name elsewhere
    "diffusion_art.diffusion.samplers.Sampler": "diffusion_art.diffusion.samplers.by_name",
    "diffusion_art.diffusion.objective.Edm": "diffusion_art.experiments.edm.EdmWeighting",
    **{
        f"diffusion_art.{before}.{name}": f"diffusion_art.{now}.{name}"
        for (before, now), names in _MOVED.items()
        for name in names.split()
    },
}

REFUSALS = (TypeError, ValueError, ArithmeticError, AssertionError, OSError)  # what constructors say of values


def config_dir() -> Path:
    """`conf/` of the checkout this package runs from, or the copy an installed wheel carries."""
    package = Path(__file__).resolve().parent
    checkout = package.parent / "conf"
    return checkout if (checkout / "train.yaml").is_file() else package / "conf"


def shipped(name: str) -> dict[str, Any]:
    """A yaml file of `conf/` as plain data: without what its groups add, and nothing in it resolved."""
    return cast(dict[str, Any], OmegaConf.to_container(OmegaConf.load(config_dir() / f"{name}.yaml"), resolve=False))


def allowed(target: str) -> bool:
    """Whether `_target_: target` may be built."""
    if any(part.startswith("_") for part in target.split(".")):
        return False
    return bool(_homes(target))


def _homes(target: str) -> tuple[str, ...]:
    """Beginnings of the names of modules that may hold what `target` names; none: it may not be built."""
    if target.startswith(OWN_PACKAGES):
        return OWN_PACKAGES
    if target == TRAINER or OPTIMIZER.fullmatch(target) or target.startswith(LIBRARY_PACKAGES):
        return LIBRARY_HOMES
    parts = _parts()
    return (*parts, *OWN_PACKAGES, *LIBRARY_HOMES) if target.startswith(parts) else ()


def _parts() -> tuple[str, ...]:
    """Packages and modules beside diffusion_art whose classes may be built, each with a dot at its end."""
    named = os.environ.get(PARTS, "").split(",")
    return tuple(f"{name.strip()}." for name in (*named, *_installed_parts()) if name.strip())


@cache
def _installed_parts() -> tuple[str, ...]:
    return tuple(point.value.partition(":")[0] for point in entry_points(group=PARTS_GROUP))


def targets(node: Any) -> Iterator[str]:
    """Every `_target_` value below `node`, depth first."""
    if isinstance(node, dict):
        if "_target_" in node:
            yield str(node["_target_"])
        for value in node.values():
            yield from targets(value)
    elif isinstance(node, list):
        for value in node:
            yield from targets(value)


def build(node: DictConfig | ListConfig | dict | list, **overrides: Any) -> Any:
    """The object a config node describes; with `_partial_: true`, a callable that still wants arguments.

    Raises:
        UserError: a `_target_` outside the allow-list, an unknown key, or a value its constructor refused.
    """
    data = _moved(plain(node))
    for target in targets(data):
        _check(target)
    node = OmegaConf.create(verbatim(verbatim(data)))  # `instantiate` resolves it, and then reads what it resolved
    try:
        return hydra.utils.instantiate(node, _convert_="all", **overrides)
    except InstantiationException as error:
        cause = error.__cause__ or error
        if isinstance(cause, UserError):
            raise cause from None
        if isinstance(cause, ImportError):  # a library that a class of another one imports when it is made
            raise _not_importable(str(plain(node).get("_target_")), cause) from error
        if isinstance(cause, REFUSALS) or type(cause).__module__.startswith("lightning."):
            key = str(error).partition("full_key:")[2].strip()
            where = f" (in the config at `{key}`)" if key else ""
            raise UserError(f"{first_line(cause)}{where}. See the choices with `--cfg job`.") from error
        raise


def made(node: dict[str, Any], **objects: Any) -> Any:
    """As `build`, with objects among the arguments.

    Raises:
        UserError: as there.
    """
    make = build({**node, "_partial_": True})
    try:
        return make(**objects)
    except TypeError as error:
        if "unexpected keyword argument" not in str(error):
            raise
        raise UserError(f"{first_line(error)}. See the choices with `--cfg job`.") from error


def class_of(node: Any) -> type:
    """The class that a config node would build.

    Raises:
        UserError: a `_target_` that is missing, outside the allow-list, or no class.
    """
    if not isclass(found := kind_of(node)):
        raise UserError(f"the config names `{plain(node)['_target_']}`, which is a function, where a class is needed.")
    return found


def kind_of(node: Any) -> Any:
    """The class, or the function, that a config node would call.

    Raises:
        UserError: a `_target_` that is missing or outside the allow-list.
    """
    target = str(_moved(plain(node)).get("_target_"))
    _check(target)
    return _find(target)


def is_a(node: Any, kind: type) -> bool:
    """Whether a config node would build a `kind`; false for what describes no object."""
    if not isinstance(node, dict | DictConfig) or "_target_" not in node:
        return False
    found = kind_of(node)
    return isclass(found) and issubclass(found, kind)


@dataclass(frozen=True)
class Described:
    """What a config node describes, built when it is called."""

    node: dict[str, Any]

    @property
    def kind(self) -> Any:
        """The class or function that is called then, so that it can be asked what it declares of itself."""
        return kind_of(self.node)

    def __call__(self) -> Any:
        return build(self.node)

    @classmethod
    def of(cls, node: dict[str, Any] | None) -> Described | None:
        """None where the config names nothing."""
        return cls(node) if node else None


def _moved(node: Any) -> Any:
    """The node with every target where it stands today."""
    if isinstance(node, dict):
        return {
            key: MOVED.get(value, value) if key == "_target_" and isinstance(value, str) else _moved(value)
            for key, value in node.items()
        }
    return [_moved(value) for value in node] if isinstance(node, list) else node


def _check(target: str) -> None:
    homes = _homes(target) if allowed(target) else ()
    found = _find(target) if homes else None
    if not (isclass(found) or isfunction(found)) or not f"{found.__module__}.".startswith(homes):
        home = getattr(found, "__module__", None) or target
        raise UserError(
            f"the config asks to build `{target}`, which is not on the list of classes a config may name: those of "
            f"diffusion_art, Lightning's callbacks, loggers and profilers, and torch's optimisers.{_trusting(home)}"
        )


def _trusting(home: str) -> str:
    """How to let a module of one's own be used; nothing for those whose functions do harm in a stranger's config."""
    named = [part.rstrip(".") for part in _parts()]
    name = home.partition(".")[0]
    if name in (*named, *sys.stdlib_module_names, "diffusion_art", "torch", "hydra", ""):
        return ""
    return (
        f" If you trust `{name}`, whose code then runs, name it before the command: {PARTS}={','.join([*named, name])}"
    )


def _find(target: str) -> Any:
    """The class or function of that name, in the module that the longest part of it names.

    Raises:
        UserError: there is none, or the module cannot be imported for want of a library.
    """
    module, names = target, []
    while True:
        module, _, name = module.rpartition(".")
        names.insert(0, name)
        try:
            found: Any = importlib.import_module(module)
            break
        except Exception as error:
            missing = isinstance(error, ModuleNotFoundError) and error.name
            if not missing or "." not in module or not f"{module}.".startswith(f"{missing}."):
                raise _not_importable(target, error) from error
    for name in names:
        if not hasattr(found, name):
            raise UserError(f"the config names `{target}`, which does not exist: there is no `{name}` in `{module}`.")
        found = getattr(found, name)
    return found


def _not_importable(target: str, error: Exception) -> UserError:
    """What to install: the library that is not there, or else the one in which an import went wrong."""
    asked = str(getattr(error, "name", None) or "").partition(".")[0]
    if isinstance(error, ModuleNotFoundError) and f"{asked}.".startswith(_parts()):
        return UserError(
            f"`{target}` cannot be found: there is no module `{error.name}` on Python's path. Start the command as "
            "`python -m diffusion_art...` in the folder that holds it, or name that folder: PYTHONPATH=FOLDER"
        )
    if isinstance(error, ModuleNotFoundError) and asked:
        return UserError(
            f"`{target}` needs the package `{asked}`, which is not installed. "
            f"Install it: python -m pip install {PIP_NAMES.get(asked, asked)}"
        )
    if isinstance(error, ModuleNotFoundError):  # Lightning's, for what its loggers need
        return UserError(
            f"`{target}` needs a package that is not installed: {first_line(error)}. "
            f"Install all trackers: {install_command('track')}"
        )
    packages = (module.partition(".")[0] for module in passed_through(error))
    package = [name for name in packages if name != "importlib"][-1]
    package = asked or package if package == "diffusion_art" else package
    if f"{package}.".startswith(_parts()):
        return UserError(f"`{target}` cannot be imported: {type(error).__name__}: {first_line(error)}.")
    return UserError(
        f"`{target}` cannot be imported, since `{package}` is broken here: {type(error).__name__}: "
        f"{first_line(error)}. Install it again: python -m pip install --force-reinstall "
        f"{PIP_NAMES.get(package, package)}"
    )


def plain(node: Any) -> Any:
    """A config node as dicts, lists, strings and numbers, with every interpolation resolved.

    Raises:
        UserError: a mandatory value (`???`) was not given, or an interpolation leads nowhere.
    """
    if not isinstance(node, (DictConfig, ListConfig)):
        return node
    try:
        return OmegaConf.to_container(node, resolve=True, throw_on_missing=True)
    except OmegaConfBaseException as error:
        key = error.full_key or ""
        if "Missing mandatory value" in str(error):
            raise UserError(f"`{key}` has no value. Give it on the command line: {key}=...") from error
        raise UserError(unset_variable(error) or f"{first_line(error)} (at `{key}`).") from error


def unset_variable(error: Exception) -> str | None:
    """What to say where `${oc.env:NAME}` asks for what is not set; None of another error."""
    if (unset := re.search(r"Environment variable '([^']+)' not found", str(error))) is None:
        return None
    name = unset[1]
    return (
        f"the environment variable {name} is not set, and ${{oc.env:{name}}} asks for it: set it, or give what "
        f"to take without it, as in ${{oc.env:{name},default}}."
    )


def value_at(node: Any, key: str, default: Any = None) -> Any:
    """What stands at a dotted key of plain data; `default` where nothing does."""
    for name in key.split("."):
        if not isinstance(node, Mapping) or name not in node:
            return default
        node = node[name]
    return node


def listed(given: Any) -> list[str]:
    """What a config gives where a list belongs: one text is a list of one, null of none."""
    return [str(each) for each in (given if isinstance(given, list) else [] if given is None else [given])]


def literal(text: str) -> str:
    """`text` as a config has to hold it to read back the same, where `${` would begin an interpolation."""
    if "${" not in text:
        return text
    return re.sub(r"(\\*)\$\{", r"\1\1\\${", text)


def unescaped(text: str) -> str:
    """The text that `literal` made this of."""
    return re.sub(r"((?:\\\\)*)\\\$\{", lambda found: found[1][: len(found[1]) // 2] + "${", text)


def verbatim(node: Any) -> Any:
    """Plain data as a config has to hold it: nothing in it interpolates."""
    if isinstance(node, dict):
        return {key: verbatim(value) for key, value in node.items()}
    if isinstance(node, (list, tuple)):
        return [verbatim(value) for value in node]
    return literal(node) if isinstance(node, str) else node
