"""What Hydra says of a mistake in what was typed, in one sentence, with what to type instead.

Some mistakes are refused here before Hydra sees them, since it takes them, or says nothing that helps.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator, Sequence
from difflib import get_close_matches
from itertools import pairwise
from pathlib import Path
from typing import Any, cast

from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hydra.errors import HydraException
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from diffusion_art.config import config_dir, shipped, unset_variable, value_at
from diffusion_art.elsewhere import choice
from diffusion_art.errors import UserError
from diffusion_art.files import key_of
from diffusion_art.overrides import FLAGS, RENAMED, called_here, given, holds, keys_of, meant, option, renamed, typed
from diffusion_art.training.run.limits import DECIDED

CAN_LACK = ("logger", "callbacks")  # groups of a run without which it trains too
ADDED = ("experiment", "debug", "sweep")  # groups that no run has by default
OWN_FILES = "--config-dir=FOLDER adds yaml files to those that are here, and --config-path would replace all of them."


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
        UserError: a group in which null is no choice, nor `true` or a number, or one that is dropped and needed.
    """
    chosen = {pair: word for word in words if (pair := typed(word)) and pair[0] in groups()}
    for group, value in chosen:
        if re.fullmatch(r"(?i)true|false|[-+.\d]+", value):
            raise UserError(no_choice(group, value))
    null = [word for (_, value), word in chosen.items() if value == "null"]
    dropped = [word for word in words if word.startswith("~") and word[1:] in groups() and word[1:] not in CAN_LACK]
    dropped = [word for word in dropped if "none" not in _choices(word[1:])]
    if not (null or dropped):
        return words
    defaults = shipped(config_name)["defaults"]
    empty = {key for one in defaults if isinstance(one, dict) for key in one if one[key] is None}
    for group in (word.partition("=")[0].lstrip("+") for word in null):
        if group not in empty:
            without = f", or ~{group} for none" if group in CAN_LACK else ""
            raise UserError(f"{group}=null is no choice: choose one of {', '.join(_choices(group))}{without}.")
    for word in dropped:
        raise UserError(f"{word} leaves nothing to go by: choose one of {', '.join(_choices(word[1:]))}.")
    return [word for word in words if word not in null]


def flags_first(words: Sequence[str]) -> list[str]:
    """The words with Hydra's own options, and what belongs to them, in front: after one of them, and among words such
    as key=value, it takes no more of these. A file of `conf/sweep` asks for a multi-run too, except when a config is
    only looked at: that is one run's. An experiment stands before what is to change it, as `+debug=overfit`: of what is
    added the last one wins.
    """
    flags, rest, at = [], [], 0
    while at < len(words):
        name = words[at].partition("=")[0]
        length = 2 if FLAGS.get(words[at]) and at + 1 < len(words) and typed(words[at + 1]) is None else 1
        bare = length == 1 and words[at] in ("--info", "-i")  # which would take the next word for its value
        (flags if name in FLAGS else rest).extend(["--info=all"] if bare else words[at : at + length])
        at += length
    rest.sort(key=lambda word: (typed(word) or "_")[0] != "experiment")
    looks = {"--cfg", "-c", "--info", "-i", "--help", "-h", "--hydra-help"} & {flag.partition("=")[0] for flag in flags}
    sweeps = any(pair[0] == "sweep" for word in rest if (pair := typed(word)))
    asked = bool({"-m", "--multirun"} & set(flags)) or not sweeps or looks
    return [*flags, *([] if asked else ["-m"]), *rest]


def refuse_options(config_name: str) -> None:
    """UserError for an option, as `--learning_rate 1e-4`, of which there are none but Hydra's; and for a rerun of
    nothing.
    """
    for flag, file in pairwise(sys.argv[1:]):
        if flag == "--experimental-rerun" and not Path(file).is_file():
            raise UserError(f"there is no {file} to run again: the words of a run stand in its .hydra/overrides.yaml.")
    if (found := option(sys.argv[1:])) is None:
        return
    flag, value = found
    key = flag.lstrip("-").replace("-", "_")
    config = _composed(config_name)
    known = key if holds(config, key) else next(iter(meant(key, config)), None)
    if known is None:
        raise UserError(f"there is no option {flag}: settings are words like key=value, and `--help` shows the keys.")
    raise UserError(f"there is no option {flag}: settings are words like key=value, here {known}={value or '...'}")


def own_keys(config_name: str) -> frozenset[str]:
    """The keys without a dot that `conf/` gives a command."""
    return frozenset(map(str, shipped(config_name))) | groups()


def refuse_added(job: Any, composed: Any, config_name: str) -> None:
    """UserError for a key that nothing reads: one that a plus sign adds to a config, as plain data, or one in a config
    file of one's own that is called otherwise here.

    What describes an object is read, as in `+callbacks.mine._target_=...`, and so is what another value interpolates.
    """
    task = given()
    words = [word for word in task if word.startswith("+") and _adds(word)]
    own = {source.provider for source in job.runtime.config_sources} - {"hydra", "main", "schema"}
    if not words and not own:
        return
    hydras = cast(list[str], OmegaConf.to_container(job.overrides.hydra, resolve=False))
    rest = [word for word in (*hydras, *task) if word not in words and not word.startswith("hydra.mode=")]
    before = cast(Any, OmegaConf.to_container(compose(job.job.config_name, overrides=rest), resolve=False))
    for key, value in filter(None, map(typed, words)):
        if holds(before, key) or _is_read(key, before, composed):
            continue
        if (known := called_here(key, before)) is not None:
            raise UserError(f"`{key}` is called `{known}` here: give {known}={value} in place of +{key}={value}.")
        raise UserError(f"there is no config key `{key}`, and nothing would read it{_nearest(key, before)}")
    ours = own_keys(config_name)
    strange = set(before) - ours if own else set()
    for key in sorted(strange):  # notes of one's own may stand there
        near = called_here(key, before) or next(iter(get_close_matches(key, ours, cutoff=0.75)), None)
        if near is not None and not _is_read(key, {}, composed):
            raise UserError(f"a config file gives `{key}`, which nothing reads: here it is called `{near}`.")


def _adds(word: str) -> bool:
    """Whether a word with a plus sign adds a key, and chooses no files of a group."""
    key = (typed(word) or ("", ""))[0]
    if not key or set("/@") & set(key) or key.startswith("hydra."):
        return False
    return not GlobalHydra.instance().config_loader().get_group_options(key)


def _is_read(key: str, before: Any, composed: Any) -> bool:
    """Whether something reads a key that was added: the object it describes, or is a setting of, or another value."""
    if any(re.search(rf"\$\{{[^}}]*\b{re.escape(key)}\b", text) for text in _texts(composed)):
        return True
    parts = key.split(".")
    above = [".".join(parts[:depth]) for depth in range(1, len(parts))]
    sections = [value_at(composed, each) for each in (*above, key)]
    described = any("_target_" in section for section in sections if isinstance(section, dict))
    return described or any(is_collection(value_at(before, each)) for each in above)


def is_collection(section: Any) -> bool:
    """Whether a section holds objects by names that anybody may give, as `callbacks` does."""
    values = section.values() if isinstance(section, dict) else ()
    return any(isinstance(value, dict) and "_target_" in value for value in values)


def _texts(node: Any) -> Iterator[str]:
    """All texts in plain data."""
    if isinstance(node, dict | list):
        for value in node.values() if isinstance(node, dict) else node:
            yield from _texts(value)
    elif isinstance(node, str):
        yield node


def check_sections(config_name: str) -> None:
    """UserError for a section that is given one value, as `guidance=3`: it would take the place of all its keys."""
    given = [pair for word in sys.argv[1:] if (pair := typed(word)) and pair[0] not in groups()]
    single = {key for key, value in given if not value.startswith(("{", "${")) and value not in ("null", "")}
    suspects = {key for key in single if key.rpartition(".")[2] in section_names()}
    if not suspects or (config := _composed(config_name)) is None:  # composing takes as long as it took Hydra
        return
    for key in suspects:
        if isinstance(section := value_at(config, key), dict):
            raise UserError(_section(key, section))


def explain(error: Exception, config_name: str) -> str:
    """Hydra's complaint as one sentence, with the value and what to type instead."""
    text = str(error).strip()
    if misspelt := re.search(r"Could not override '([^']+)'", text):
        return _unknown(misspelt.group(1), config_name)
    if missing := re.search(r"Could not find '([^']+)'", text) or re.search(r"Could not load '([^']+)'", text):
        if any(word.startswith(("--config-path", "-cp")) for word in sys.argv[1:]):
            return f"there is no {missing.group(1)}.yaml among your own: {OWN_FILES}"
        group, _, name = missing.group(1).rpartition("/")
        found = re.findall(r"^\t(\S+)$", text, flags=re.MULTILINE)
        return _as_path(missing.group(1)) or no_choice(group, name, found)
    if several := re.search(r"Ambiguous value for argument '([^']+)'", text):
        key, _, values = several.group(1).partition("=")
        return f"{key}={values} are several values. Add -m for a run with each, or give a list: '{key}=[{values}]'."
    if sweep := re.search(r"Sweep parameters '([^']+)' requires --multirun", text):
        return f"{sweep.group(1)} are several values. Add -m for a run with each."
    if "does not support sweep type" in text:
        return "interval(...) is a range to search in, which takes a search: add +sweep=optuna."
    if gone := re.search(r"Could not delete from config. '([^']+)' does not exist", text):
        near = get_close_matches(gone.group(1), keys_of(_composed(config_name)), n=1, cutoff=0.6)
        return f"there is no config key `{gone.group(1)}` to drop" + (f"; did you mean `{near[0]}`?" if near else ".")
    if twice := re.search(r"Multiple values for (\S+)\. To override", text):
        words = [word for word in sys.argv[1:] if word.lstrip("+").startswith(f"{twice.group(1)}=")]
        if len(words) == 1:
            return f"{twice.group(1)} is chosen already: give {words[0].lstrip('+')}, without a plus sign."
        return f"{twice.group(1)}=... stands there more than once: give one of them."
    if primary := re.search(r"Cannot find primary config '([^']+)'", text):
        return f"there is no {primary.group(1)}.yaml to begin with. {OWN_FILES}"
    if (unset := unset_variable(error)) is not None:
        return unset
    first = " ".join(line.strip() for line in text.splitlines()[:2])
    return f"{first} (HYDRA_FULL_ERROR=1 shows where)"


def _as_path(choice: str) -> str | None:
    """What to say of a choice, as `experiment/conf/experiment/mine.yaml`, that is given as a path; None of a name."""
    group = next((name for name in sorted(groups(), reverse=True) if choice.startswith(f"{name}/")), "")
    file = Path(choice.removeprefix(f"{group}/"))
    if not group or file.name == str(file):
        return None
    sign = "+" if group in ADDED else ""
    if file.stem in _choices(group):
        return f"{group}={file} is a path, and a file is chosen by its name: {sign}{group}={file.stem}."
    if not file.with_suffix(".yaml").is_file():
        return f"there is no {file.with_suffix('.yaml')} to choose for {group}. {OWN_FILES}"
    beside = file.parent.parts[-group.count("/") - 1 :] == tuple(group.split("/"))
    folder = file.parents[group.count("/") + 1] if beside else "FOLDER"
    where = "" if beside else f", where it lies as FOLDER/{group}/{file.stem}.yaml"
    return f"{group}={file} is a path: give --config-dir={folder} {sign}{group}={file.stem}{where}."


def _unknown(key: str, config_name: str) -> str:
    """What to say of a key that this command does not have."""
    config = _composed(config_name)
    if key in ADDED and holds(config, "trainer"):
        word = next((word for word in sys.argv[1:] if key_of(word) == key), f"{key}=...")
        return f"no run has `{key}` by default, so it is added with a plus sign: +{word}"
    if (now := renamed(key)) and holds(config, RENAMED[key].partition(".")[0]):
        return f"{now} in place of {key}=..."
    section = None if config is None else value_at(config, key)
    if isinstance(section, dict):
        return _section(key, section)
    if section is not None:
        return f"`{key}` is a key, not a group of files: write `{key}: ...` in place of `override /{key}: ...`."
    parent = key.rpartition(".")[0]
    within = None if config is None or not parent else value_at(config, parent)
    if parent == "trainer" and within and (decided := DECIDED.get(key.removeprefix("trainer."))):
        return f"{key} changes nothing here: give {decided[1]}."
    if called_here(key, config):
        return f"there is no config key `{key}`{_nearest(key, config)}"
    there = _named(within) if isinstance(within, dict) else ""
    beside = f" `{parent}` has {there}." if there else ""
    adding = f" Add a new key with `+{key}=...`." if is_collection(within) or "_target_" in (within or {}) else ""
    return f"there is no config key `{key}`{_nearest(key, config)}{beside}{adding}"


def _section(key: str, section: dict[str, Any]) -> str:
    first = next((name for name in section if not name.startswith("_")), "KEY")
    return f"`{key}` is a section with the keys {_named(section)}. Give one of them, as in {key}.{first}=..."


def _named(section: dict[str, Any]) -> str:
    return ", ".join(f"`{name}`" for name in section if not str(name).startswith("_"))


def no_choice(group: str, name: str, options: Sequence[str] = ()) -> str:
    """What to say of a file that a group does not have."""
    options = options or _choices(group)
    known = f" Choose one of: {', '.join(options)}." if options else " See the choices with `--help`."
    told = f": {said}" if (said := choice(group, name)) else ""
    return f"there is no `{name}` in the config group `{group}`{told}.{known}"


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


def _nearest(key: str, config: dict[str, Any] | None) -> str:
    """'; did you mean ...?' from the keys of a config."""
    plain = [known for known in keys_of(config) if not known.endswith("_")]  # no _target_
    plain += ADDED if holds(config, "trainer") else ()
    near = meant(key, config)[:3] or get_close_matches(key, plain, n=3, cutoff=0.6)
    return f"; did you mean {' or '.join(f'`{name}`' for name in near)}?" if near else "."
