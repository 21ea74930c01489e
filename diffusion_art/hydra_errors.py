"""What Hydra says of a mistake in what was typed, in one sentence, with what to type instead.

Some mistakes are refused here before Hydra sees them, since it takes them, or says nothing that helps.
"""

from __future__ import annotations

import re
import sys
from difflib import get_close_matches
from typing import Any, cast

from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hydra.errors import HydraException
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from diffusion_art.config import config_dir
from diffusion_art.errors import UserError
from diffusion_art.overrides import RENAMED, holds, keys_of, meant, option, renamed, typed

CAN_LACK = ("logger", "callbacks")  # groups of a run without which it trains too


def groups() -> frozenset[str]:
    """The keys that choose a file of `conf/`: its folders with yaml files."""
    root = config_dir()
    return frozenset(file.parent.relative_to(root).as_posix() for file in root.rglob("*.yaml")) - {"."}


def section_names() -> frozenset[str]:
    """Last parts of the keys that have keys below them, Hydra's own aside: groups, and what `conf/` says."""
    files = (file for file in config_dir().rglob("*.yaml") if config_dir() / "hydra" not in file.parents)
    texts = [file.read_text("utf-8") for file in files]
    names = {part for group in groups() for part in group.split("/")}
    names.update(name for text in texts for name in re.findall(r"(?m)^ *(\w+): *(?:#.*|[{].*)?$", text))
    aliases = (pair for text in texts for pair in re.findall(r"(?m)^ *(\w+): *[$][{][\w.]*?(\w+)[}]", text))
    return frozenset(names | {name for name, target in aliases if target in names})


def without_nulls(words: list[str], config_name: str) -> list[str]:
    """The words but for `sampler=null`, where a command has no file of that group anyway; Hydra cannot read it.

    Raises:
        UserError: a group in which null is no choice.
    """
    null = [word for word in words if (pair := typed(word)) and pair[0] in groups() and pair[1] == "null"]
    if not null:
        return words
    defaults = OmegaConf.to_container(OmegaConf.load(config_dir() / f"{config_name}.yaml"), resolve=False)
    empty = {key for one in cast(Any, defaults)["defaults"] if isinstance(one, dict) for key in one if one[key] is None}
    for group in (word.partition("=")[0].lstrip("+") for word in null):
        if group not in empty:
            without = f", or ~{group} for none" if group in CAN_LACK else ""
            raise UserError(f"{group}=null is no choice: choose one of {', '.join(_choices(group))}{without}.")
    return [word for word in words if word not in null]


def refuse_options(config_name: str) -> None:
    """UserError for an option, as `--learning_rate 1e-4`, of which there are none but Hydra's."""
    if (found := option(sys.argv[1:])) is None:
        return
    flag, value = found
    key = flag.lstrip("-").replace("-", "_")
    config = _composed(config_name)
    known = key if holds(config, key) else next(iter(meant(key, config)), None)
    if known is None:
        raise UserError(f"there is no option {flag}: settings are words like key=value, and `--help` shows the keys.")
    raise UserError(f"there is no option {flag}: settings are words like key=value, here {known}={value or '...'}")


def check_sections(config_name: str) -> None:
    """UserError for a section that is given one value, as `guidance=3`: it would take the place of all its keys."""
    given = [pair for word in sys.argv[1:] if (pair := typed(word)) and pair[0] not in groups()]
    single = {key for key, value in given if not value.startswith(("{", "${")) and value not in ("null", "")}
    suspects = {key for key in single if key.rpartition(".")[2] in section_names()}
    if not suspects or (config := _composed(config_name)) is None:  # composing takes as long as it took Hydra
        return
    for key in suspects:
        if isinstance(section := _at(config, key), dict):
            raise UserError(_section(key, section))


def explain(error: Exception, config_name: str) -> str:
    """Hydra's complaint as one sentence, with the value and what to type instead."""
    text = str(error).strip()
    if misspelt := re.search(r"Could not override '([^']+)'", text):
        return _unknown(misspelt.group(1), config_name)
    if missing := re.search(r"Could not find '([^']+)'", text) or re.search(r"Could not load '([^']+)'", text):
        group, _, choice = missing.group(1).rpartition("/")
        options = re.findall(r"^\t(\S+)$", text, flags=re.MULTILINE) or _choices(group)
        known = f" Choose one of: {', '.join(options)}." if options else " See the choices with `--help`."
        return f"there is no `{choice}` in the config group `{group}`.{known}"
    if several := re.search(r"Ambiguous value for argument '([^']+)'", text):
        key, _, values = several.group(1).partition("=")
        return f"{key}={values} are several values. Add -m for a run with each, or give a list: '{key}=[{values}]'."
    first = " ".join(line.strip() for line in text.splitlines()[:2])
    return f"{first} (HYDRA_FULL_ERROR=1 shows where)"


def _unknown(key: str, config_name: str) -> str:
    """What to say of a key that this command does not have."""
    config = _composed(config_name)
    if (now := renamed(key)) and holds(config, RENAMED[key].partition(".")[0]):
        return f"{now} in place of {key}=..."
    section = None if config is None else _at(config, key)
    if isinstance(section, dict):
        return _section(key, section)
    if section is not None:
        return f"`{key}` is a key, not a group of files: write `{key}: ...` in place of `override /{key}: ...`."
    parent = key.rpartition(".")[0]
    within = None if config is None or not parent else _at(config, parent)
    beside = f" `{parent}` has {_named(within)}." if isinstance(within, dict) and within else ""
    return f"there is no config key `{key}`{_nearest(key, config)}{beside} Add a new key with `+{key}=...`."


def _section(key: str, section: dict[str, Any]) -> str:
    first = next((name for name in section if not name.startswith("_")), "KEY")
    return f"`{key}` is a section with the keys {_named(section)}. Give one of them, as in {key}.{first}=..."


def _named(section: dict[str, Any]) -> str:
    return ", ".join(f"`{name}`" for name in section if not str(name).startswith("_"))


def _choices(group: str) -> list[str]:
    return sorted(file.stem for file in (config_dir() / group).glob("*.yaml")) if group else []


def _composed(config_name: str) -> dict[str, Any] | None:
    """The config of this command with the groups and the experiment asked for, else as it is; no other key is set."""
    known = groups()
    chosen = [word for word in sys.argv[1:] if (pair := typed(word)) and pair[0] in known and "," not in pair[1]]
    for overrides in (chosen, []):
        try:
            GlobalHydra.instance().clear()
            with initialize_config_dir(str(config_dir()), version_base="1.3"):
                config = compose(config_name, overrides=overrides)
        except (HydraException, OmegaConfBaseException):
            continue
        return cast(dict[str, Any], OmegaConf.to_container(config, resolve=False))
    return None


def _at(config: Any, key: str) -> Any:
    """What stands at a dotted key; None where nothing does."""
    for name in key.split("."):
        config = config.get(name) if isinstance(config, dict) else None
    return config


def _nearest(key: str, config: dict[str, Any] | None) -> str:
    """'; did you mean ...?' from the keys of a config."""
    near = meant(key, config)[:3] or get_close_matches(key, keys_of(config), n=3, cutoff=0.6)
    return f"; did you mean {' or '.join(f'`{name}`' for name in near)}?" if near else "."
