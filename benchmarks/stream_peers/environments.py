"""A virtual environment for each line of requirements.txt, all with the project's own torch, numpy and simplejpeg.

A path file lists the project's site-packages behind the environment's own, so that pip installs only what the
project has not, and the library runs with the same torch as we do. A library that will not install is left out,
and the reason is kept.
"""

from __future__ import annotations

import subprocess
import sys
import sysconfig
import venv
from pathlib import Path

REQUIREMENTS = Path(__file__).parent / "requirements.txt"


def peers(requirements: Path = REQUIREMENTS) -> dict[str, str]:
    """The libraries by name, as pip wants them: {"litdata": "litdata==0.2.76", ...}."""
    lines = [line.strip() for line in requirements.read_text().splitlines()]
    wanted = [line for line in lines if line and not line.startswith("#")]
    return {line.partition("==")[0]: line for line in wanted}


def python_of(name: str, folder: Path, *, requirements: Path = REQUIREMENTS) -> Path:
    """The Python that has library `name`, installed under `folder` when it is not there yet.

    RuntimeError with pip's last words when it does not install.
    """
    home, wanted = folder / name, peers(requirements)[name]
    python, done = home / "bin" / "python", home / wanted.replace("=", "-")
    if done.exists():
        return python
    print(f"installing {wanted} into {home}", flush=True)
    venv.create(home, with_pip=True, clear=True)
    asked = [str(python), "-c", "import sysconfig; print(sysconfig.get_path('purelib'))"]
    site = Path(subprocess.run(asked, check=True, capture_output=True, text=True).stdout.strip())
    ours = sysconfig.get_path("purelib")
    (site / "zz_project.pth").write_text(f"{ours}\n")
    command = [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check", wanted]
    installed = subprocess.run(command, capture_output=True, text=True)
    if installed.returncode:
        raise RuntimeError(installed.stderr.strip().splitlines()[-1])
    done.touch()
    return python


if __name__ == "__main__":
    for peer in peers():
        print(peer, python_of(peer, Path(sys.argv[1])))
