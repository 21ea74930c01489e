"""What a look at the machine found, and what of it may be told to others."""

from __future__ import annotations

import getpass
import platform
import re
from dataclasses import dataclass, replace
from typing import Literal

from diffusion_art.files import without_home

State = Literal["ok", "slow", "missing", "impossible"]  # missing: something that is asked for can not be done


@dataclass(frozen=True)
class Finding:
    """One line: `name` is short, `value` what was found, `advice` the setting or command that helps."""

    name: str
    value: str
    state: State = "ok"
    advice: str = ""


def without_names(finding: Finding) -> Finding:
    """The finding as a stranger may read it: no home folder, no name of the user or the machine."""
    return replace(finding, value=_scrubbed(finding.value), advice=_scrubbed(finding.advice))


def _scrubbed(text: str) -> str:
    text = without_home(text)
    for name, told in ((_user(), "USER"), (platform.node(), "HOST")):
        if len(name) > 2 and name != "root":
            text = re.sub(rf"(?<![\w-]){re.escape(name)}(?![\w-])", told, text)
    return text


def _user() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # a container's user without an entry
        return ""
