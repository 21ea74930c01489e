"""All findings about this machine, for people and for programs."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

from diffusion_art.diagnosis.devices import devices
from diffusion_art.diagnosis.finding import Finding, without_names
from diffusion_art.diagnosis.machine import disks, limits, network, trackers
from diffusion_art.diagnosis.versions import codecs, versions

MARKS = {"ok": " ", "slow": "!", "missing": "-", "impossible": "X"}


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
