from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from diffusion_art.watching.folder import RunFolder
from diffusion_art.watching.runs import changes


def folder(path: Path, config: dict[str, Any]) -> RunFolder:
    path.mkdir()
    (path / "config.yaml").write_text(yaml.safe_dump(config))
    return RunFolder(path, path.name)


def test_settings_that_changed_together_share_a_row_and_parts_are_off(tmp_path):
    base = {"seed": 0, "optim": {"_target_": "a.AdamW", "lr": 0.1, "betas": 1}, "callbacks": {"x": {"every": 1}}}
    wide = base | {"model": {"width": 8, "heads": 2}, "perceptual": None}
    narrow = base | {"model": {"width": 4, "heads": 1}, "perceptual": {"_target_": "a.b.Perceptual", "weight": 0.1}}
    other = wide | {"optim": {"_target_": "a.Muon", "lr": 0.1, "momentum": 0.9}, "callbacks": {"x": {"every": 2}}}
    folders = [folder(tmp_path / name, told) for name, told in (("a", wide), ("b", narrow), ("c", other))]
    assert changes(folders) == {
        "optim": ["AdamW", "AdamW", "Muon"],
        "perceptual (and 3 more)": ["off", "Perceptual", "off"],
    }
    assert changes(folders[:1]) == {}


def test_a_key_of_another_version_is_no_change(tmp_path):
    old, new = {"data": {"size": 32}, "a": {"b": 1}}, {"data": {"size": 32, "crc": True}, "a": {"b": 2}}
    assert changes([folder(tmp_path / "old", old), folder(tmp_path / "new", new)]) == {"a.b": [1, 2]}
