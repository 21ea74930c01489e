"""Pages that are one file: styles, scripts, pictures and curves lie in it, so they open offline and ask for nothing.

A run's `report.html` has several parts, training and evaluation, which different commands write. Who writes one leaves
the others as they are.
"""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Mapping
from functools import cache
from html import escape
from pathlib import Path
from typing import Any

from diffusion_art.files import written

PARTS = {"training": "Training", "evaluation": "Evaluation"}  # in their order on the page
_PART = re.compile(r"<!-- part (\w+) -->\n(.*?)\n<!-- end of part -->", re.DOTALL)
_CSP = "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; img-src data:"


def page(title: str, parts: Mapping[str, str]) -> str:
    """A whole page of these parts, HTML by name."""
    told = [
        f'<article id="{name}"><h2 class="part">{PARTS[name]}</h2>\n<!-- part {name} -->\n{parts[name]}\n'
        "<!-- end of part --></article>"
        for name in PARTS
        if name in parts
    ]
    head = (
        f'<meta charset="utf-8"><meta http-equiv="Content-Security-Policy" content="{_CSP}">'
        f'<meta name="viewport" content="width=device-width"><title>{escape(title)}</title>'
    )
    return (
        f'<!doctype html>\n<html lang="en"><head>{head}<style>{asset("style.css")}</style></head>\n'
        f"<body><main>\n<h1>{escape(title)}</h1>\n" + "\n".join(told) + "\n</main></body></html>\n"
    )


def write_part(path: Path, name: str, part: str, *, title: str) -> None:
    """Write one part of the page at `path`, which keeps its others."""
    others = dict(_PART.findall(path.read_text(encoding="utf-8"))) if path.is_file() else {}
    with written(path) as partial:
        partial.write_text(page(title, others | {name: part}), encoding="utf-8")


def section(title: str, body: str) -> str:
    return f"<section><h2>{escape(title)}</h2>{body}</section>" if body else ""


def data_url(content: bytes, media_type: str) -> str:
    return f"data:{media_type};base64,{base64.b64encode(content).decode()}"


def data(name: str, value: Any) -> str:
    """Plain data for a script of the page: `document.getElementById(name).textContent`, as JSON."""
    text = json.dumps(value, separators=(",", ":"), allow_nan=False).replace("<", "\\u003c")
    return f'<script type="application/json" id="{name}">{text}</script>'


def script(*names: str) -> str:
    """Modules of ours as one inline script."""
    text = "\n".join(re.sub(r"^(export |import .*)", "", asset(name), flags=re.MULTILINE) for name in names)
    return f'<script type="module">\n{text}</script>'


@cache
def asset(name: str) -> str:
    """A file beside this one."""
    return Path(__file__).with_name(name).read_text(encoding="utf-8")
