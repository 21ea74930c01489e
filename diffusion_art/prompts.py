"""Prompts as people give them: a list, one text, a text file with one on each line, or a list that ships."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from diffusion_art.config import config_dir
from diffusion_art.errors import UserError
from diffusion_art.sources.texts import read_text

if TYPE_CHECKING:
    from diffusion_art.runs import Run

LISTS = "prompt_lists"  # the folder of `conf/` with the lists that ship
EXAMPLES = 12  # captions of its own data that a run paints with prompts=auto


def read_prompts(asked: Any) -> list[str]:
    """The prompts that `asked` means.

    A list is taken as it is. Of a text, the name of a list that ships and the path of a file stand for what they hold;
    any other is a prompt itself.

    Raises:
        UserError: a file that is not there or holds no prompt.
    """
    if isinstance(asked, (list, tuple)):
        return [str(prompt) for prompt in asked]
    if isinstance(asked, Mapping):
        raise UserError(f"prompts={dict(asked)} has names: give texts alone, as prompts=[A,B], or prompts=FILE.")
    text = str(asked)
    shipped = config_dir() / LISTS / f"{text}.txt"
    if re.fullmatch(r"\w+", text) and _is_file(shipped):
        return lines_of(shipped)
    file = Path(text).expanduser()
    if _is_file(file):
        return lines_of(file)
    if re.fullmatch(r"\S+\.txt", text):
        raise UserError(f"there is no file {text} to read prompts from. Give prompts=FILE, a prompt on each line.")
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
        UserError: no line is left.
    """
    lines = (line.strip() for line in read_text(file).text.splitlines())
    prompts = [line for line in lines if line and not line.startswith("#")]
    if not prompts:
        raise UserError(f"{file} holds no prompt. Write one on each line; lines that begin with # do not count.")
    return prompts


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except (OSError, ValueError):  # longer than a name may be
        return False
