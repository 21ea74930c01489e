"""README's tree is the tree."""

from __future__ import annotations

import re
import tomllib
from itertools import pairwise

from tests.conftest import ROOT

NOT_SHOWN = {"data", "logs", "outputs", "multirun", "wandb", "build", "dist"}  # what commands write, there or not


def _tree() -> tuple[set[str], set[str]]:
    """(folders of the repository, modules and folders of the package) that README's tree names."""
    block = re.search(r"```\n(conf/.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
    assert block is not None
    above, _, below = block[1].partition("diffusion_art/\n")
    folders = {line.split()[0].rstrip("/") for line in above.splitlines()}
    names = (re.match(r"  ((?:[\w/]+(?:\.py|/) ?)+)", line) for line in below.splitlines())
    return folders, {name.rstrip("/") for found in names if found for name in found[1].split()}


def test_each_folder_and_module_is_in_the_tree_and_the_tree_holds_no_other():
    folders, modules = _tree()
    there = {path for path in ROOT.iterdir() if path.is_dir() and path.name[0] not in "._"}
    written = {path.name for path in there if not any(path.rglob("*.[pmisy]*"))}  # .py .md .ipynb .sh .yaml
    assert folders - NOT_SHOWN == {path.name for path in there} - written - NOT_SHOWN - {"diffusion_art"}
    package = ROOT / "diffusion_art"
    named = {path.name for path in package.iterdir() if path.suffix == ".py" or (path / "__init__.py").is_file()}
    assert modules - {"shards/__main__.py"} == named - {"__init__.py"}
    assert (package / "shards" / "__main__.py").is_file()


def test_the_tree_lists_modules_in_the_order_of_their_floors():
    text = (ROOT / "README.md").read_text()
    block = text.partition("diffusion_art/\n  ")[2].partition("```")[0]
    lines = [re.findall(r"(\w+)(?:\.py|/)", line) for line in block.splitlines()]
    row = {name: number for number, names in enumerate(lines) for name in names}
    contracts = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"]
    layers = next(contract for contract in contracts if contract["type"] == "layers")["layers"]
    floors = [[row[name] for name in re.findall(r"diffusion_art\.(\w+)", layer)] for layer in reversed(layers)]
    assert len(floors) > 20
    assert all(max(below) <= min(above) for below, above in pairwise(floors))
