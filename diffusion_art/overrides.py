"""What people type as `key=value`, made ready for Hydra's grammar, so that free text and paths need no knowledge of it.

    source.path=My Pictures (2)        ->  source.path='My Pictures (2)'
    negative_prompt=blurry, bad        ->  negative_prompt='blurry, bad'
    prompts=[Monet's garden, a = b]    ->  prompts=['Monet\\'s garden','a = b']

The last part of a key tells what it holds: a text (`PROSE`, where `${` is text too), or a path or a name (`NAMES`,
where `${...}` interpolates and a leading `~` is the home folder). Their values are taken as the shell let them through;
of other keys only those that Hydra cannot read. In a multi-run a comma still separates the values of a sweep.
A plus sign before a key that is there already does no harm: `+trainer.max_steps=10` is `trainer.max_steps=10`.
"""

from __future__ import annotations

import os
import re
import shlex
from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise
from typing import Any, cast

from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override, Quote, QuotedString
from hydra.errors import HydraException
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException
from omegaconf.grammar_parser import parse

from diffusion_art.config import literal, value_at
from diffusion_art.elsewhere import ELSEWHERE
from diffusion_art.errors import UserError

# what a key was called before, in any command that has the new one
RENAMED = {
    "asked": "prompts",
    "sampler.name": "sampler",  # the choice of a file, as sampler=ddim
    "model.text_encoder.cache_mb": "model.text_encoder.cache_captions",
    "logger.wandb.save_dir": "logger.wandb.folder",
    "data.codec": "data.payload",
    "alignment.place": "alignment.layer",
    "alignment.until": "alignment.stop_at_fraction",
    "alignment.relation": "alignment.similarity_weight",
    "pictures": "decode_pictures",
    "teacher_guidance_scale": "teacher.guidance_scale",
}
PROSE = frozenset({"prompt", "prompts", "negative_prompt", "caption_template"})
NAMES = frozenset(
    (
        *("path", "paths", "run", "out", "name", "ckpt_path", "checkpoint", "weights", "guide", "real"),
        *("folder", "file", "filename", "dir", "cache", "ca", "certificate", "key", "state", "token", "public_url"),
        *("pretrained", "model", "repo_id", "revision", "host", "project", "entity", "group", "notes", "job_type"),
    )
)
LISTS = frozenset({"prompts", "path", "token", "run", "checkpoint"})  # keys whose values may be lists
_PLACES = ("_path", "_dir", "_uri", "_folder", "_file")
_ENDINGS = (*_PLACES, "_column", "_template", "_prompt")
_TYPED = re.compile(r"(\+{0,2}[A-Za-z_][\w.$@/:-]*)=(.*)", re.DOTALL)
_SWEEP = re.compile(r"\s*(choice|range|interval|glob|shuffle|sort|tag)\s*\(.*\)\s*", re.DOTALL)
# Hydra's options, and whether a value follows them
FLAGS = {
    **dict.fromkeys(("--config-path", "-cp", "--config-name", "-cn", "--config-dir", "-cd", "--package", "-p"), True),
    **dict.fromkeys(("--cfg", "-c", "--info", "-i", "--experimental-rerun"), True),
    **dict.fromkeys(("--help", "-h", "--hydra-help", "--version", "--resolve", "--run", "-r"), False),
    **dict.fromkeys(("--multirun", "-m", "--shell-completion", "-sc"), False),
}
_SWEPT = "hydra.sweeper.params"  # conf/hydra/ makes it an empty mapping: null could not be merged with one
_MISSING = object()
_CLOSERS = {"(": ")", "[": "]", "{": "}"}


def understood(
    words: Sequence[str], *, groups: frozenset[str] = frozenset(), keys: frozenset[str] = frozenset()
) -> list[str]:
    """The arguments of a command as Hydra can read them. `groups` are the keys that choose a file of `conf/`, `keys`
    those without a dot that the command has.

    Raises:
        UserError: one that sets nothing, as what follows a space that the shell took for an end, or a path or a name
            that is empty.
    """
    sweeping = any(word in ("-m", "--multirun", "hydra.mode=MULTIRUN") for word in words)
    before = ["", *words][: len(words)]
    for flag, word in zip(before, words, strict=True):
        sets = typed(word) is not None or word.startswith(("-", "~")) or _parsed(word) is not None
        if not sets and not FLAGS.get(flag):
            raise UserError(_bare(word, before=flag))
    return [
        word if FLAGS.get(flag) else _there_already(_understood(word, groups, sweeping), groups, keys)
        for flag, word in zip(before, words, strict=True)
    ]


def _there_already(word: str, groups: frozenset[str], keys: frozenset[str]) -> str:
    """`+key=...` as `++key=...` where that may be a key that is there; not where it may be a group of one's own. And
    the keys of a sweep, which are new below theirs.
    """
    key = (typed(word) or ("", ""))[0]
    if key == _SWEPT:
        return f"++{word.lstrip('+')}"
    may_be = key not in groups and not set("/@") & set(key) and ("." in key or key in keys)
    return f"++{word.lstrip('+')}" if word.startswith("+") and may_be else word


def typed(word: str) -> tuple[str, str] | None:
    """(key, value) of an argument that sets something, its plus signs left out; None for any other."""
    found = _TYPED.fullmatch(word)
    return (found[1].lstrip("+"), found[2]) if found else None


def given() -> list[str]:
    """The words of this command that set keys, Hydra's own aside, with `${...}` as typed; none outside of a command."""
    if not HydraConfig.initialized():
        return []
    return cast(list[str], OmegaConf.to_container(HydraConfig.get().overrides.task, resolve=False))


def renamed(key: str) -> str | None:
    """What to say of a key that is called otherwise today; None for any other."""
    return f"`{key}` is called `{RENAMED[key]}` now: give {RENAMED[key]}=..." if key in RENAMED else None


def meant(key: str, config: Any) -> list[str]:
    """The keys of a config, as plain data, that other trainers call `key`; else those that end as it does."""
    name = key.rpartition(".")[2]
    if known := called_here(key, config):
        return [known]
    return sorted((known for known in keys_of(config) if known.rpartition(".")[2] == name), key=lambda k: k.count("."))


def called_here(key: str, config: Any) -> str | None:
    """The key of a config, as plain data, that other trainers give the name of `key`."""
    known = ELSEWHERE.get(key.rpartition(".")[2], ())
    return next((one for one in known if one != key and holds(config, one)), None)


def keys_of(node: Any, prefix: str = "") -> Iterator[str]:
    """All dotted keys of plain data, those of sections among them."""
    for name, value in node.items() if isinstance(node, Mapping) else ():
        yield f"{prefix}{name}"
        yield from keys_of(value, f"{prefix}{name}.")


def option(words: Sequence[str]) -> tuple[str, str] | None:
    """(`--name`, value) of the first word that looks like an option and is not one of Hydra's, else None.
    The value is what follows it, if that is no option and no key=value.
    """
    for word, after in pairwise([*words, ""]):
        name, equals, value = word.partition("=")
        if re.fullmatch(r"--?[A-Za-z][\w.-]*", name) and not _hydras(name):
            bare = "" if typed(after) or after.startswith("-") else after
            return name, value if equals else bare
    return None


def _hydras(flag: str) -> bool:
    return flag in FLAGS or (flag.startswith("--") and any(known.startswith(flag) for known in FLAGS))


def refuse_renamed(config: Mapping[str, Any]) -> None:
    """UserError for a composed config, as plain data, that has a key by its old name: nothing would read it."""
    for old, new in RENAMED.items():
        if holds(config, old) and holds(config, new):
            raise UserError(f"{renamed(old)} in place of {old}=...")


def holds(config: Any, key: str) -> bool:
    """Whether plain data has a dotted key, if only for null."""
    return value_at(config, key, _MISSING) is not _MISSING


def _bare(word: str, *, before: str) -> str:
    key = f"`{word}` is no key=value. Write its key before it, as in {shlex.quote(f'path={word}')}"
    if typed(before) is None:
        return f"{key}; `--help` shows the keys."
    return f"{key}; or, if it belongs to what stands before it, put both in quotes: {shlex.quote(f'{before} {word}')}"


def _understood(word: str, groups: frozenset[str], sweeping: bool) -> str:
    found = _TYPED.fullmatch(word)
    if found is None:
        return word
    key, value = found[1].lstrip("+"), found[2]
    held = key.rpartition(".")[2]
    if not value.strip() and (held in NAMES or held.endswith(_PLACES)):
        raise UserError(f"`{key}=` has no value, as where a shell variable is empty: give one, or {key}=null for none.")
    if key in groups or "/" in key or "@" in key or not value.strip():
        return word
    free = held in PROSE or held in NAMES or held.endswith(_ENDINGS)
    readable = _parsed(word)
    if readable is not None and (not free or (sweeping and _SWEEP.fullmatch(value))):
        return word
    whole = not sweeping or (held in NAMES and os.path.exists(value))  # noqa: PTH110 -- never raises
    values = [value] if whole else [piece.strip() for piece in _pieces(value)]
    return f"{found[1]}={','.join(_value(held, each, free) for each in values)}"


def _value(held: str, value: str, free: bool) -> str:
    """One value in Hydra's grammar."""
    bare = value.strip()
    if not bare:
        return "''"
    if bare in ("null", "???") or (not free and _parsed(f"x={value}") is not None):
        return bare
    if (text := _unquoted(bare)) is not None:
        return _text(held, text)
    bracketed = bare[:1] + bare[-1:] in ("[]", "{}")
    if not bracketed or (free and (held not in LISTS or (held not in PROSE and os.path.exists(value)))):  # noqa: PTH110
        return _text(held, value)
    if bare[0] == "[":
        return f"[{','.join(_value(held, each.strip(), free) for each in _pieces(bare[1:-1]) if each.strip())}]"
    return _text(held, value) if held in PROSE else _mapping(held, bare)


def _mapping(held: str, bare: str) -> str:
    """{path: ~/my pictures, weight: 1}, its values read as those of such keys are."""
    entries = []
    for entry in _pieces(bare[1:-1]):
        name, colon, value = entry.partition(":")
        if not colon:
            return _text(held, bare)
        name = name.strip()
        entries.append(f"{name}:{_value(name, value.strip(), name in NAMES or name in PROSE)}")
    return "{" + ",".join(entries) + "}"


def _text(held: str, text: str) -> str:
    """A text in quotes that Hydra and OmegaConf read back as it is; of a name, with its interpolations."""
    if held in PROSE or not _interpolates(text):
        text = literal(text)
    if held not in PROSE and text.startswith("~"):
        text = os.path.expanduser(text)  # noqa: PTH111 -- `~nobody` stays as it is
    within = "'" in text and '"' not in text and text != literal(text)  # in ${...}, where Hydra reads no escaped ones
    return QuotedString(text, Quote.double if within else Quote.single).with_quotes()


def _interpolates(text: str) -> bool:
    try:
        parse(text)
    except OmegaConfBaseException:
        return False
    return True


def _unquoted(bare: str) -> str | None:
    """What stands in quotes, where the whole value does; else None."""
    if bare[:1] not in ("'", '"') or (parsed := _parsed(f"x={bare}")) is None:
        return None
    raw = parsed.value()
    return raw if isinstance(raw, str) and not parsed.is_sweep_override() else None


def _parsed(word: str) -> Override | None:
    try:
        return OverridesParser.create().parse_override(word)
    except HydraException:
        return None


def _pieces(text: str) -> Iterator[str]:
    """`text` cut at its commas, but for those in brackets that close and in quotes that begin a piece."""
    start = at = 0
    while at < len(text):
        if text[at] in "'\"" and not text[start:at].strip():
            at = _after_quotes(text, at)
        elif text[at] in _CLOSERS:
            at = _after_brackets(text, at)
        elif text[at] == ",":
            yield text[start:at]
            start = at = at + 1
        else:
            at += 1
    yield text[start:]


def _after_quotes(text: str, at: int) -> int:
    """Where the quoted piece that begins at `at` is over; the next character where its quotes do not close."""
    closed = re.compile(rf"{text[at]}((?:\\.|[^\\])*?){text[at]}\s*(?=,|$)", re.DOTALL).match(text, at)
    return closed.end() if closed else at + 1


def _after_brackets(text: str, at: int) -> int:
    depth = 0
    for place in range(at, len(text)):
        depth += (text[place] == text[at]) - (text[place] == _CLOSERS[text[at]])
        if depth == 0:
            return place + 1
    return at + 1
