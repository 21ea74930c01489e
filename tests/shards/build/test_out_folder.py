"""`shards/build/out_folder.py`: shards of older rules, which lack captions, are told of."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from diffusion_art.shards.build.build import build_shards
from diffusion_art.shards.build.out_folder import CAPTION_RULES, RULES_KEY, of_older_rules
from diffusion_art.shards.manifest import MANIFEST_FILE, Manifest
from diffusion_art.sources.detect import open_source
from tests.fakes_sources import captioned, jpegs, write_files
from tests.shards.build.test_locate import folder_of

SMALL = {"image_size_px": 16, "val_fraction": 0.0, "progress": False, "workers": 1}


def built(tmp_path: Path, *, rules: int | None = None, template: str | None = None, **files: Any) -> Path:
    """Shards of a collection of which some pictures may lack captions, with the number of those rules."""
    write_files(tmp_path / "in", {**jpegs("a.jpg", "b.jpg"), "a.txt": "one", **files})
    build_shards(open_source(tmp_path / "in"), tmp_path / "out", caption_template=template, **SMALL)
    age(tmp_path / "out", rules)
    return tmp_path / "out"


def age(folder: Path, rules: int | None) -> None:
    """As if the shards were built by those rules; None is before they had a number."""
    manifest = json.loads((folder / MANIFEST_FILE).read_text())
    assert manifest["extra"].pop(RULES_KEY) == CAPTION_RULES
    manifest["extra"] |= {} if rules is None else {RULES_KEY: rules}
    (folder / MANIFEST_FILE).write_text(json.dumps(manifest))


@pytest.mark.parametrize("rules", [None, CAPTION_RULES - 1])
def test_older_rules_that_left_pictures_without_captions(tmp_path: Path, rules: int | None) -> None:
    folder = built(tmp_path, rules=rules)
    line = of_older_rules(folder)
    assert f"{folder}: its captions were read by older rules, and 1 picture has none. More is read" in line
    assert f"source.path=COLLECTION out={folder} image_size_px=16 overwrite=true" in line


def test_what_nobody_need_read_anew(tmp_path: Path) -> None:
    assert of_older_rules(built(tmp_path / "new", rules=CAPTION_RULES)) == ""
    assert of_older_rules(built(tmp_path / "all", **{"b.txt": "two"})) == ""
    assert of_older_rules(built(tmp_path / "off", template="")) == ""


def test_prepare_says_what_to_type(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    folder = built(tmp_path)
    with caplog.at_level("INFO"):
        build_shards(open_source(tmp_path / "in"), folder, again="python -m diffusion_art.prepare x", **SMALL)
    assert f"to read these anew: `python -m diffusion_art.prepare x out={folder} overwrite=true`" in caplog.text
    build_shards(open_source(tmp_path / "in"), folder, overwrite=True, **SMALL)
    assert Manifest.load(folder).extra[RULES_KEY] == CAPTION_RULES


def test_a_training_says_what_to_type(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    pictures = captioned(tmp_path / "monet", 12)
    (pictures / "3.txt").unlink()
    folder = folder_of(pictures, tmp_path / "data")
    with caplog.at_level("INFO"):
        assert folder_of(pictures, tmp_path / "data") == folder
        assert "older rules" not in caplog.text
        age(folder, None)
        assert folder_of(pictures, tmp_path / "data") == folder
        assert f"1 picture has none. More is read as captions now; to read these anew: `rm -r {folder}`" in caplog.text
        caplog.clear()
        assert folder_of(folder, tmp_path / "data") == folder
        assert "source.path=COLLECTION" in caplog.text
