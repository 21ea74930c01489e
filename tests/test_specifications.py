"""The examples and tables of the specifications are read by the code that they specify."""

from __future__ import annotations

import hashlib
import json
import re
from dataclasses import fields
from typing import Any

import numpy as np

from diffusion_art.evaluation.judge import judge_scores
from diffusion_art.record import Record
from diffusion_art.shards.manifest import Manifest
from diffusion_art.shards.order import draws
from diffusion_art.shards.tables import INDEX_ROW
from diffusion_art.streaming.eir import wire as eir
from diffusion_art.streaming.wire import (
    _HEADER,
    Error,
    Hello,
    Read,
    StreamInfo,
    decode_frame,
    frame_parts,
    unpack_message,
)
from tests.conftest import ROOT
from tests.golden.trace import HERE


def _page(name: str) -> str:
    return (ROOT / "docs" / f"{name}.md").read_text()


def _blocks(page: str, kind: str) -> list[str]:
    return re.findall(rf"^```{kind}\n(.*?)^```", page, re.DOTALL | re.MULTILINE)


def _json(page: str) -> list[Any]:
    return [json.loads(line) for block in _blocks(page, "json") for line in block.splitlines()]


def test_messages_of_the_wire_are_messages():
    found = [unpack_message(text) for text in _blocks(_page("wire"), "json")]
    assert [type(message) for message in found] == [Hello, StreamInfo, Read, Error]


def test_the_frame_of_the_wire_is_a_frame():
    (text,) = _blocks(_page("wire"), "hex")
    data = bytes.fromhex(text)
    frame = decode_frame(data)
    assert (frame.request, frame.position, frame.last) == (7, 128, True)
    assert frame.keys.tolist() == [0xFF]
    assert [bytes(caption) for caption in frame.captions] == [b"a red house"]
    image = bytes(frame.images[0])
    assert image.hex() == "ffd8ffd9"
    keys = np.array([0xFF], np.uint64)
    assert data == b"".join(frame_parts(keys, [b"a red house"], [image], request=7, position=128, last=True))


def test_the_table_of_the_header_is_the_header():
    table = _page("wire").partition("## The data frame")[2]
    rows = [(int(at), int(size)) for at, size in re.findall(r"^\| (\d+) \| (\d+) \|", table, re.M)]
    assert [at for at, _ in rows] == [sum(size for _, size in rows[:i]) for i in range(len(rows))]
    assert sum(size for _, size in rows) == _HEADER.size


def test_requests_of_eir_are_understood():
    *requests, sample = _json(_page("eir"))
    assert all(eir.parse(json.dumps(request)) == request for request in requests)
    by_type = {request["type"]: request.get("payload") for request in requests}
    assert eir.batch_size(by_type["getData"]) == 64
    assert eir.validation_ids(by_type["setValidationIds"]) == [f"{0xFF:016x}"]
    written = json.loads(b"".join(eir.encode_sample(0xFF, b"a red house", bytes.fromhex("ffd8ffd9"))).rstrip(b","))
    assert written == sample


def test_the_table_of_a_checkpoint_has_the_keys_of_the_record():
    table = _page("checkpoints").partition("The keys of `diffusion_art`")[2].partition("## An exported")[0]
    named = {key for cell in re.findall(r"^\| (`.*?`) \|", table, re.M) for key in re.findall(r"`(\w+)`", cell)}
    assert named == {field.name for field in fields(Record)} - {"more"} | {"format"}


def test_the_index_and_the_manifest_are_as_the_page_says():
    page = _page("shards")
    line = next(line for line in page.splitlines() if line.strip().startswith("key u64 |"))
    said = [tuple(column.split()) for column in line.split("|")]
    assert said == [
        (name, kind.str.lstrip("<").replace("u8", "u64").replace("u4", "u32"))
        for name, (kind, _) in INDEX_ROW.fields.items()
    ]
    manifest = Manifest.load(HERE / "toy")
    table = page.partition("## The manifest")[2].partition("The digest")[0]
    named = {
        key.partition(".")[0]
        for cell in re.findall(r"^\| (`.*?`) \|", table, re.M)
        for key in re.findall(r"`([\w.<>]+)`", cell)
    }
    assert set(json.loads(manifest.to_json())) == named


def test_the_formula_for_captions_is_the_code():
    """As the page writes it, in integers."""
    key = int.from_bytes(hashlib.shake_256(b'["diffusion-art-captions-1", 0, 3, "train"]').digest(8), "little")
    for place in (0, 5, 4097):
        x = place ^ key
        x = (x ^ (x >> 30)) * 0xBF58476D1CE4E5B9 % 2**64
        draw = (x ^ (x >> 27)) * 0x94D049BB133111EB % 2**64
        assert draw == int(draws("train", 0, 3, np.array([place]))[0])


def test_the_files_of_a_run_folder_are_written_somewhere():
    code = "".join(path.read_text() for path in (ROOT / "diffusion_art").rglob("*.py"))
    rows = re.findall(r"^\| (`.*?`) \|", _page("run_folder"), re.M)
    names = {name.rpartition("/")[2] for row in rows for name in re.findall(r"`([^`]+)`", row)}
    assert len(names) > 12
    written = code + (ROOT / "conf" / "train.yaml").read_text()
    assert {name for name in names if not name.startswith("step_") and name not in written} == set()


def test_the_judges_card_has_the_figures_of_its_file():
    rows = re.findall(r"^\| `(\w+)`: .*? \| ([\d,]+) \| ([\d.]+) \| ([\d.]+) \|$", _page("judge"), re.M)
    scores = judge_scores()
    assert {kind for kind, *_ in rows} == {name.partition("/")[0] for name in scores}
    for kind, count, style, palette in rows:
        assert int(count.replace(",", "")) == scores[f"{kind}/count"]
        assert (style, palette) == (f"{100 * scores[f'{kind}/style']:.2f}", f"{100 * scores[f'{kind}/palette']:.2f}")
