"""Look at this machine: `python -m diffusion_art.doctor`. What it prints is what a bug report needs.

    python -m diffusion_art.doctor format=json          # the same for programs

It takes seconds, trains nothing, and tells no paths, tokens or names. The status is 0 unless something makes training
impossible.
"""

from __future__ import annotations

from diffusion_art.extras import check_extra

check_extra("paint")

import json
import sys
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

from omegaconf import DictConfig

from diffusion_art.cli import command
from diffusion_art.diagnosis.devices import devices
from diffusion_art.diagnosis.finding import Finding, without_names
from diffusion_art.diagnosis.machine import disks, limits, network, trackers
from diffusion_art.diagnosis.versions import codecs, versions
from diffusion_art.errors import UserError

MARKS = {"ok": " ", "slow": "!", "missing": "-", "impossible": "X"}


@command("doctor")
def main(config: DictConfig) -> None:
    """Print what was found."""
    write = {"text": text, "json": as_json}.get(str(config.format))
    if write is None:
        raise UserError(f"format={config.format} is not known: choose text or json.")
    sections = examine(Path(config.paths.data_dir), Path(config.paths.log_dir))
    print(write(sections))  # noqa: T201 -- what was asked for
    if not possible(sections):
        sys.exit(1)


def examine(data_dir: Path, log_dir: Path) -> dict[str, list[Finding]]:
    """All findings by section."""
    sections: dict[str, Callable[[], list[Finding]]] = {
        "versions": versions,
        "devices": devices,
        "pictures": codecs,
        "disks": lambda: disks({"data": data_dir, "logs": log_dir}),
        "network": network,
        "limits": limits,
        "trackers": trackers,
    }
    return {name: [without_names(finding) for finding in look()] for name, look in sections.items()}


def text(sections: dict[str, list[Finding]]) -> str:
    """For people: every finding, then what to do about those that matter, the gravest first."""
    width = max(len(finding.name) for found in sections.values() for finding in found)
    lines = []
    for name, found in sections.items():
        lines += [name, *(f"{MARKS[f.state]} {f.name:<{width}}  {f.value}" for f in found), ""]
    order = list(MARKS)[::-1]
    advised = [finding for found in sections.values() for finding in found if finding.advice]
    advised.sort(key=lambda finding: order.index(finding.state))
    lines += ["what helps" if advised else "nothing to change"]
    lines += [f"{MARKS[f.state]} {f.name}: {f.value}\n    {f.advice}" for f in advised]
    return "\n".join([*lines, "", "X makes training impossible, ! is slow, - cannot be done here"])


def as_json(sections: dict[str, list[Finding]]) -> str:
    found = {name: [asdict(finding) for finding in findings] for name, findings in sections.items()}
    return json.dumps({"possible": possible(sections), **found}, indent=1, ensure_ascii=False)


def possible(sections: dict[str, list[Finding]]) -> bool:
    """Whether training is."""
    return all(finding.state != "impossible" for found in sections.values() for finding in found)


if __name__ == "__main__":
    main()
