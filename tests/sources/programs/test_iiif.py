"""`sources/programs/museums.py`: manifests of IIIF, of both versions."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from diffusion_art.sources.detect import open_source
from tests.fakes_sources import captions_of, jpegs, write_files


def canvas(label: str, name: str, *, version: int) -> dict[str, Any]:
    address = f"https://x/iiif/{name}/full/max/0/default.jpg"
    if version == 2:
        return {"label": label, "images": [{"resource": {"@id": address}}]}
    return {"type": "Canvas", "label": {"none": [label]}, "items": [{"items": [{"body": {"id": address}}]}]}


def manifest(canvases: list[dict[str, Any]], *, version: int) -> dict[str, Any]:
    if version == 2:
        metadata = [{"label": "Creator", "value": "J. M. W. Turner"}]
        return {
            "@type": "sc:Manifest",
            "label": "A Sketchbook",
            "metadata": metadata,
            "sequences": [{"canvases": canvases}],
        }
    metadata = [{"label": {"en": ["Creator"]}, "value": {"none": ["J. M. W. Turner"]}}]
    return {"type": "Manifest", "label": {"en": ["A Sketchbook"]}, "metadata": metadata, "items": canvases}


@pytest.mark.parametrize("version", [2, 3])
@pytest.mark.parametrize("names", [("a.jpg", "b.jpg"), ("f. 1v.jpg", "f. 2r.jpg")])  # by the address, or by the label
def test_a_manifest_describes_its_pictures(tmp_path: Path, version: int, names: tuple[str, str]) -> None:
    content = manifest([canvas("f. 1v", "a", version=version), canvas("f. 2r", "b", version=version)], version=version)
    write_files(tmp_path, {**jpegs(*names), "manifest.json": json.dumps(content)})
    captions = captions_of(open_source(tmp_path))
    assert captions[names[0]] == "J. M. W. Turner / A Sketchbook, f. 1v"
    assert captions[names[1]] == "J. M. W. Turner / A Sketchbook, f. 2r"


@pytest.mark.parametrize("version", [2, 3])
def test_of_one_picture_the_title_is_that_of_the_object(tmp_path: Path, version: int) -> None:
    content = manifest([canvas("front", "x", version=version)], version=version)
    write_files(tmp_path, {**jpegs("a.jpg"), "a.json": json.dumps(content)})
    assert captions_of(open_source(tmp_path)) == {"a.jpg": "J. M. W. Turner / A Sketchbook"}


def test_a_manifest_of_nothing_gives_nothing(tmp_path: Path) -> None:
    odd = {
        "type": "Manifest",
        "items": [3, {"items": ["x", {"items": [None]}]}],
        "metadata": "x",
        "sequences": {"a": 1},
    }
    write_files(tmp_path, {**jpegs("a.jpg"), "manifest.json": json.dumps(odd)})
    assert captions_of(open_source(tmp_path)) == {"a.jpg": ""}
