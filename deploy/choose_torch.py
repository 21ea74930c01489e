"""Which torch suits this machine, as constraints for pip: `python deploy/choose_torch.py > torch.txt`.

With a GPU, or on macOS, it writes nothing: pip's own choice is right. Without one it writes the newest CPU-only torch
and torchvision that pyproject.toml takes, where pip is told of an index that has them; else it says what is large. It
needs Python and pip alone, for nothing is installed when `make` asks it.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

PROJECT = Path(__file__).parents[1] / "pyproject.toml"
CUDA = (
    "There is no GPU here and no index of CPU-only torch is configured: CUDA's libraries come along, 4 GB on the disk. "
    "Without them: PIP_EXTRA_INDEX_URL=https://download.pytorch.org/whl/cpu make train"
)


def has_gpu() -> bool:
    """An NVIDIA or AMD GPU, as far as its driver's files tell."""
    return any(Path("/dev").glob("nvidia[0-9]*")) or Path("/dev/kfd").exists() or shutil.which("nvidia-smi") is not None


def floor_of(name: str) -> tuple[int, ...]:
    """The oldest version that the package's extras take."""
    extras = tomllib.loads(PROJECT.read_text("utf-8"))["project"]["optional-dependencies"]
    found = next(match for each in extras["paint"] if (match := re.fullmatch(rf"{name}>=([\d.]+)", each)))
    return _numbers(found[1])


def cpu_only(name: str) -> dict[tuple[int, ...], str]:
    """The CPU-only versions that pip can find, not older than the floor, by their numbers."""
    line = [sys.executable, "-m", "pip", "index", "versions", name, "--disable-pip-version-check"]
    told = subprocess.run(line, capture_output=True, text=True, check=False).stdout
    versions = {_numbers(each): each for each in re.findall(r"(?<![\w.])[\d.]+\+cpu(?![\w.])", told)}
    return {numbers: version for numbers, version in versions.items() if numbers >= floor_of(name)}


def pair() -> tuple[str, str] | None:
    """The newest torch and the torchvision made for it: 0.29.1 is for 2.14.1."""
    torches = cpu_only("torch")
    visions = cpu_only("torchvision") if torches else {}
    for numbers in sorted(torches, reverse=True):
        major, minor, *patch = numbers
        if major == 2 and (made_for_it := (0, minor + 15, *patch)) in visions:
            return torches[numbers], visions[made_for_it]
    return None


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(map(int, version.partition("+")[0].split(".")))


def main() -> None:
    if sys.platform == "darwin" or has_gpu():
        return
    if (found := pair()) is None:
        sys.stderr.write(CUDA + "\n")
        return
    sys.stdout.write(f"torch=={found[0]}\ntorchvision=={found[1]}\n")


if __name__ == "__main__":
    main()
