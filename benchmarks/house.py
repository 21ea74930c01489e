"""How much one has to read: the files that a picture and a caption pass, and lines, counted.

    python benchmarks/house.py [files=true]

A picture goes from a row of parquet to its loss, a caption from a request to its PNG, with `quickstart32` made tiny, in
this process, all set up before. A file counts where one of its functions runs on the way; imports, tests and other
libraries do not. `files=true` lists them. What is touched to add a part is counted in docs/extending.md.
Runs of six lines that stand in two places are counted without blank lines, imports and lines of one bracket.
"""

from __future__ import annotations

import ast
import asyncio
import inspect
import io
import itertools
import json
import re
import sys
import tempfile
import threading
import urllib.request
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from hydra import compose, initialize_config_dir
from PIL import Image

import diffusion_art
from diffusion_art.config import config_dir
from diffusion_art.launching.settle import settle
from diffusion_art.runs import load_run
from diffusion_art.serving.engine.engine import Engine
from diffusion_art.serving.listening import listen_at, url_of
from diffusion_art.serving.server import make_server
from diffusion_art.serving.studio import Studio
from diffusion_art.shards.build.locate import Shards
from diffusion_art.shards.mixture import open_shards
from diffusion_art.shards.places import components_of
from diffusion_art.sources.painter import Painter
from diffusion_art.streaming.server.service import open_server
from diffusion_art.streaming.server.settings import Settings
from diffusion_art.training.build import build_datamodule, build_step

PACKAGE = Path(diffusion_art.__file__).parent
ROOT, HOME = PACKAGE.parent, f"{PACKAGE}/"
MODEL = ROOT / "tests" / "golden" / "old" / "model.safetensors"
TINY = ["+experiment=quickstart32", "+debug=tiny", "trainer.accelerator=cpu", "compile=false"]
ALIKE = 6  # lines


class Trip:
    """The files of the package whose functions ran inside `leg`, by the leg's name, in any thread started since."""

    def __init__(self) -> None:
        self.legs: dict[str, set[str]] = defaultdict(set)
        self._leg: set[str] | None = None
        threading.setprofile(self._see)
        sys.setprofile(self._see)

    @contextmanager
    def leg(self, name: str) -> Iterator[None]:
        self._leg = self.legs[name]
        try:
            yield
        finally:
            self._leg = None

    def end(self) -> Trip:
        sys.setprofile(None)
        threading.setprofile(None)
        return self

    @property
    def files(self) -> set[str]:
        return set().union(*self.legs.values())

    def _see(self, frame: FrameType, event: str, _: Any) -> None:
        code = frame.f_code
        runs = (
            event == "call" and code.co_flags & inspect.CO_OPTIMIZED
        )  # the body of a class or module has no such flag
        if self._leg is not None and runs and code.co_filename.startswith(HOME):
            self._leg.add(code.co_filename.removeprefix(HOME))


def write_rows(folder: Path) -> None:
    """Paintings as WikiArt has them, in one parquet file."""
    rows = []
    for number in range(96):
        picture, file = Painter(count=96, image_size_px=32).paint(number), io.BytesIO()
        Image.fromarray(picture.image).save(file, "JPEG", quality=95)
        told = {
            "title": f"No. {number}",
            "artist": "the painter",
            "date": "1921",
            "genre": "abstract",
            "style": "Cubism",
        }
        rows.append({**told, "filename": f"{number}.jpg", "image": {"bytes": file.getvalue(), "path": None}})
    folder.mkdir()
    pq.write_table(pa.Table.from_pylist(rows), folder / "train.parquet")


def picture_trip(folder: Path) -> Trip:
    write_rows(folder / "rows")
    trip = Trip()
    with trip.leg("row to shard"):
        (spec,) = components_of(
            Shards(folder / "rows", folder / "data", 32, build={"workers": 1, "progress": False}).ready()
        )
    with initialize_config_dir(str(config_dir()), version_base="1.3"):
        config = compose("train", overrides=[*TINY, "data.source=null", f"data.path={spec.path}", "data.num_workers=0"])
    settings = settle(config, folder / "run")
    step = build_step(settings)
    with streaming([spec]) as url:
        data = build_datamodule({**settings, "data": {**settings["data"], "url": url, "path": None}})
        data.setup()
        batches = iter(data.train_dataloader())
        with trip.leg("shard to batch"):
            batch = next(batches)
            batch = data.on_after_batch_transfer(batch, 0)
        del batches
        data.teardown()
    with trip.leg("batch to loss"):
        losses = step(step.drawn(batch, global_batch_size=len(batch)), step=0)
        losses.total().backward()
    return trip.end()


@contextmanager
def streaming(spec: Any) -> Iterator[str]:
    loop = asyncio.new_event_loop()
    server = loop.run_until_complete(open_server(open_shards(spec), settings=Settings()))
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    try:
        yield f"ws://127.0.0.1:{next(iter(server.sockets)).getsockname()[1]}/ws"
    finally:
        loop.call_soon_threadsafe(server.close)
        asyncio.run_coroutine_threadsafe(server.wait_closed(), loop).result()
        loop.call_soon_threadsafe(loop.stop)
        thread.join()


def caption_trip() -> Trip:
    trip, run, up = Trip(), load_run(MODEL), threading.Event()
    engine = Engine(run.model, max_rows=4)
    studio, listener = Studio(run, engine, None), listen_at("127.0.0.1", 0)
    server = make_server(studio, drain_s=5, ready=lambda _: up.set())
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
    engine.start()
    thread.start()
    up.wait()
    asked = json.dumps({"prompt": "a red house", "response_format": "b64_json"}).encode()
    request = urllib.request.Request(
        f"{url_of(listener)}/v1/images/generations", asked, {"Content-Type": "application/json"}
    )
    with (
        trip.leg("request to PNG"),
        urllib.request.build_opener(urllib.request.ProxyHandler({})).open(request) as answer,
    ):
        assert json.load(answer)["data"]
    server.should_exit = server.force_exit = True
    thread.join()
    listener.close()
    studio.close()
    return trip.end()


def lines_of(path: Path) -> int:
    return len(path.read_text("utf-8").splitlines())


def alike() -> list[tuple[int, str]]:
    """(lines, places) of each run of `ALIKE` lines or more that stands in two functions of the package.

    Imports and parameter lists are not counted: one interface's functions have the same.
    """
    places: dict[tuple[str, ...], list[tuple[str, int]]] = defaultdict(list)
    kept: dict[str, list[tuple[int, str]]] = {}
    for path in sorted(PACKAGE.rglob("*.py")):
        name, text = str(path.relative_to(PACKAGE)), path.read_text("utf-8")
        skipped = {n for node in ast.walk(ast.parse(text)) for n in _boilerplate(node)}
        lines = ((number, line.strip()) for number, line in enumerate(text.splitlines(), 1) if number not in skipped)
        kept[name] = [(number, line) for number, line in lines if len(line) > 2]
        for first in range(len(kept[name]) - ALIKE + 1):
            window = tuple(line for _, line in kept[name][first : first + ALIKE])
            places[window].append((name, first))
    found: dict[tuple[str, str, int], list[int]] = defaultdict(list)
    for where in places.values():
        for one, other in itertools.pairwise(where):
            found[one[0], other[0], other[1] - one[1]].append(one[1])
    runs = []
    for (one, other, shift), firsts in found.items():
        for first in firsts:
            if first - 1 in firsts:
                continue
            length = ALIKE
            while first + length - ALIKE + 1 in firsts:
                length += 1
            runs.append((length, f"{one}:{kept[one][first][0]} {other}:{kept[other][first + shift][0]}"))
    return sorted(runs, reverse=True)


def _boilerplate(node: ast.AST) -> range:
    """The lines of an import, or of a function from its name to its body."""
    if isinstance(node, ast.Import | ast.ImportFrom):
        return range(node.lineno, (node.end_lineno or node.lineno) + 1)
    if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
        return range(node.lineno, node.body[0].lineno)
    return range(0)


def parts_to_add() -> dict[str, int]:
    """Files outside tests that docs/extending.md writes, by part: those of its diffs, those that stand above a block of
    code, or the one that it names.
    """
    sections = re.split(r"(?m)^## ", (ROOT / "docs" / "extending.md").read_text("utf-8"))[1:]
    named = r"(?m)^(?:\+\+\+ b/|`)((?:conf|diffusion_art|tests)/[^\s`]+\.\w+)"
    written = {section.partition("\n")[0]: re.findall(named, section) for section in sections}
    return {part: sum(not file.startswith("tests/") for file in files) or 1 for part, files in written.items()}


def main(files: str = "false") -> None:
    with tempfile.TemporaryDirectory() as folder:
        picture = picture_trip(Path(folder))
    caption = caption_trip()
    if files == "true":
        for name, found in [*picture.legs.items(), *caption.legs.items()]:
            print(f"{name}: {len(found)}\n  " + "\n  ".join(sorted(found)))
    legs = ", ".join(f"{name} {len(found)}" for name, found in picture.legs.items())
    package = sorted(PACKAGE.rglob("*.py"))
    added = ", ".join(f"{part.lower()} {count}" for part, count in parts_to_add().items())
    runs = alike()
    print("| measure | now |\n|---|---|")
    print(f"| files a picture passes, row to loss ({legs}) | {len(picture.files)} |")
    print(f"| files a caption passes, request to PNG | {len(caption.files)} |")
    print(f"| files and lines of Python in the package | {len(package)}; {sum(map(lines_of, package)):,} |")
    print(f"| lines of the Lightning shell (training/module.py) | {lines_of(PACKAGE / 'training' / 'module.py')} |")
    print(f"| files to touch for {added} | {max(parts_to_add().values())} at most |")
    print(f"| runs of {ALIKE} lines or more that stand twice, imports and parameter lists aside | {len(runs)} |")
    for length, where in runs[:10] if files == "true" else []:
        print(f"  {length} lines: {where}")


if __name__ == "__main__":
    main(**dict(argument.split("=", 1) for argument in sys.argv[1:]))
