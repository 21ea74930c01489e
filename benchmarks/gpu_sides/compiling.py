"""Seconds that compiling adds to a start: with nothing kept from before, and with what that start kept."""

from __future__ import annotations

import shutil
import sys
from dataclasses import asdict
from typing import Any

from record import below
from stream_sides.running import SideError, run

from gpu_sides.ground import Ground
from gpu_sides.part import NotMeasured, Part, Raw, Rows

FIRST, NEXT = "s of compiling wikiart, first start", "s of compiling wikiart, next start"
LIMIT_S = 240


def _compiling(ground: Ground) -> Raw:
    cache = ground.folder / "cache"

    def seconds(compile_network: str) -> float:
        given = {"device": str(ground.device), "scale": asdict(ground.scale), "folder": str(ground.folder.resolve())}
        asked = {**given, "cache": str(cache.resolve()), "compile": compile_network}
        try:
            return run(sys.executable, "gpu_sides.first_step", asked, limit_s=LIMIT_S)["seconds"]
        except SideError as error:
            raise NotMeasured(f"a start with compile={compile_network} failed: {error}") from error

    shutil.rmtree(cache, ignore_errors=True)
    first, following = seconds("true"), seconds("true")
    return {"first": first, "next": following, "eager": seconds("false")}  # whose own kernels are then there too


def _rows(raw: Raw, about: dict[str, Any]) -> Rows:
    return [
        below(line, max(0.0, raw[start] - raw["eager"]), limit, goal=f"<= {limit} s", eager_s=raw["eager"], **about)
        for line, start, limit in ((FIRST, "first", 40), (NEXT, "next", 10))
    ]


compiling = Part("compiling", (FIRST, NEXT), 95, _compiling, _rows)
