"""Prompts as people give them: a list, one text, a file (a line or a row for each), or a list that ships."""

from __future__ import annotations

import json
import logging
import re
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from diffusion_art.captions.columns import ready_captions
from diffusion_art.config import config_dir
from diffusion_art.errors import UserError
from diffusion_art.sources.tables.table import read_table
from diffusion_art.sources.tables.texts import read_text

if TYPE_CHECKING:
    from diffusion_art.runs import Run

LISTS = "prompt_lists"  # the folder of `conf/` with the lists that ship
TABLES = ("csv", "tsv", "json", "jsonl", "ndjson", "parquet")  # suffixes of files with a prompt in each row
EXAMPLES = 12  # captions of its own data that a run paints with prompts=auto
# what other programs read in a prompt: weights, wildcards, choices, LoRAs, breaks, prompts that change on the way,
# and options
_MARKS = re.compile(
    r"[(][^()]+:(?:[0-9]|[0-9]?[.][0-9]+)[)]|__[\w/-]+__|[{][^{}]*[|][^{}]*[}]|<(?:lora|lyco|hypernet):[^>]*>"
    r"|\bBREAK\b|\[[^][]+:[^][]*:[0-9.]+\]|(?<!\S)--(?:[a-z]|ar|seed|ss|no|niji|chaos|stylize) [^-\s][^-]*"
)

log = logging.getLogger(__name__)


def read_prompts(asked: Any) -> list[str]:
    """The prompts that `asked` means.

    A list is taken as it is. Of a text, the name of a list that ships and the path of a file stand for what they hold;
    any other is a prompt itself. Marks that other programs read and that are plain text here are told of.

    Raises:
        UserError: a file that is not there or holds no prompt, a folder, or nothing.
    """
    if isinstance(asked, Mapping):
        raise UserError(f"prompts={dict(asked)} has names: give texts alone, as prompts=[A,B], or prompts=FILE.")
    several = isinstance(asked, (list, tuple))
    prompts = ["" if one is None else str(one) for one in asked] if several else _meant(str(asked))
    if mark := next((found[0].strip() for prompt in prompts if (found := _MARKS.search(prompt))), None):
        log.warning("prompts hold marks such as %s: other programs act on them, here they are plain text", mark)
    return prompts


def _meant(text: str) -> list[str]:
    if not text.strip():
        raise UserError("prompts= is empty: give texts or a file, or 'prompts=[\"\"]' to paint without a caption.")
    shipped = config_dir() / LISTS / f"{text}.txt"
    if re.fullmatch(r"\w+", text) and _is_file(shipped):
        return lines_of(shipped)
    file = Path(text).expanduser()
    if _is_file(file):
        return rows_of(file) if file.suffix.lower().lstrip(".") in TABLES else lines_of(file)
    if re.fullmatch(rf"\S+\.(?:txt|{'|'.join(TABLES)})", text):
        raise UserError(f"there is no file {text} to read prompts from. Give prompts=FILE, a prompt on each line.")
    if "/" in text and _is_folder(file):
        raise UserError(f"{text} is a folder. Give prompts=FILE, with a prompt on each line or in each row.")
    return [text]


def prompts_of(asked: Any, run: Run) -> list[str]:
    """The prompts asked for; without any, the run's own.

    Raises:
        UserError: nothing asked for, and a run without prompts.
    """
    if asked is not None:
        return read_prompts(asked)
    if not run.prompts:
        raise UserError('give prompts to paint, such as \'prompts=["a red house", "a blue house"]\'.')
    return run.prompts


def lines_of(file: Path) -> list[str]:
    """The lines of a file of prompts. Empty ones and those that begin with # do not count.

    Raises:
        UserError: no line is left, or one has options.
    """
    lines = (line.strip() for line in read_text(file).text.splitlines())
    prompts = [line for line in lines if line and not line.startswith("#")]
    if with_options := next((line for line in prompts if line.startswith("--")), None):
        raise UserError(
            f"{file} has options in its lines, as in {with_options[:60]}. Write prompts alone, and give the rest "
            "for all of them: negative_prompt=..., num_steps=..., guidance_scale=..., seed=..."
        )
    if not prompts:
        raise UserError(f"{file} holds no prompt. Write one on each line; lines that begin with # do not count.")
    return prompts


def rows_of(file: Path) -> list[str]:
    """One prompt of each row of a table, such as PartiPrompts.tsv or DrawBench.csv; all of a lone row. Or the texts of
    a JSON list.

    A column of prompts counts before one of captions; a row without a text in it is left out.

    Raises:
        UserError: no column holds prompts, or the file is damaged.
    """
    if texts := _list_of_texts(file):
        return texts
    rows = [row for _, row in read_table(file, Counter(), is_picture=lambda _: False)]
    found = [texts for texts in map(_prompts_in, rows) if texts]
    if prompts := found[0] if len(rows) == 1 and found else [texts[0] for texts in found]:
        return prompts
    columns = ", ".join(rows[0]) if rows else "no rows"
    raise UserError(
        f"{file} has no column of prompts among {columns}: call it prompt, or write a prompt on each line of a .txt."
    )


def _prompts_in(row: Mapping[str, Any]) -> list[str]:
    asked = {name: value for name, value in row.items() if name.strip().lower() in ("prompt", "prompts")}
    return ready_captions(asked) or ready_captions(row)


def _list_of_texts(file: Path) -> list[str]:
    """Those of a JSON file that is a list of texts alone; else none."""
    if file.suffix.lower() != ".json":
        return []
    try:
        content = json.loads(read_text(file).text)
    except (ValueError, RecursionError):
        return []
    texts = content if isinstance(content, list) and all(isinstance(item, str) for item in content) else []
    return [text for text in texts if text.strip()]


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except (OSError, ValueError):  # longer than a name may be
        return False


def _is_folder(path: Path) -> bool:
    try:
        return path.is_dir()
    except (OSError, ValueError):
        return False
