"""Small real collections of pictures, made in a test's own folder."""

from __future__ import annotations

import io
import pickle
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

from diffusion_art.captions.captioner import Captioner
from diffusion_art.sources.base import Item, Note, Picture, Source

# The columns and types of `Artificio/WikiArt`.
WIKIART_SCHEMA = pa.schema(
    [(name, pa.string()) for name in ("title", "artist", "date", "genre", "style", "description", "filename")]
    + [
        ("image", pa.struct([("bytes", pa.binary()), ("path", pa.string())])),
        ("embeddings_pca512", pa.list_(pa.float32())),
    ]
)


def picture(number: int, *, width: int = 24, height: int = 20) -> np.ndarray:
    """uint8 [h w 3], smooth and different for each number."""
    rng = np.random.default_rng(number)
    corners = rng.integers(0, 256, (2, 2, 3), dtype=np.uint8)
    return np.asarray(Image.fromarray(corners).resize((width, height), Image.Resampling.BILINEAR))


def encoded(image: np.ndarray | Image.Image, format: str = "JPEG", **options: Any) -> bytes:
    """A picture as the bytes of a file."""
    image = Image.fromarray(image) if isinstance(image, np.ndarray) else image
    buffer = io.BytesIO()
    image.save(buffer, format, **options)
    return buffer.getvalue()


def wikiart_rows(count: int, *, first: int = 0) -> list[dict[str, Any]]:
    """Rows with the rough edges of the original: "None" dates, floats as years, doubled spaces, non-ASCII."""
    rows = []
    for number in range(first, first + count):
        date = ("None", "1968.0", "c.1502")[number % 3]
        row = {
            "title": f"Étude  {number}",
            "artist": f"Artist {number % 7}",
            "date": date,
            "genre": "landscape",
            "style": "Impressionism",
            "description": f"Artist {number % 7} / Étude  {number} / Impressionism / landscape / {date}",
            "filename": f"Impressionism/etude-{number}.jpg",
            "image": {"bytes": encoded(picture(number)), "path": f"etude-{number}.jpg"},
            "embeddings_pca512": None,
        }
        rows.append(row)
    return rows


def write_parquet(
    file: Path, rows: list[dict[str, Any]], *, schema: pa.Schema | None = WIKIART_SCHEMA, **options: Any
) -> Path:
    file.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.Table.from_pylist(rows, schema=schema), file, **options)
    return file


def wikiart_folder(folder: Path, *, count: int = 10, files: int = 2) -> Path:
    """A folder in WikiArt's layout: `data/train-*.parquet`, `count` pictures in each."""
    for number in range(files):
        name = f"train-{number:05d}-of-{files:05d}.parquet"
        write_parquet(folder / "data" / name, wikiart_rows(count, first=number * count))
    return folder


def captioned(folder: Path, count: int, *, first: int = 0) -> Path:
    """`count` pictures with a text beside each."""
    folder.mkdir(parents=True)
    for number in range(first, first + count):
        (folder / f"{number}.png").write_bytes(encoded(picture(number), "PNG"))
        (folder / f"{number}.txt").write_text(f"swatch {number}")
    return folder


def write_files(root: Path, files: Mapping[str, bytes | str]) -> Path:
    """A folder with `files` by their posix paths; text is written as UTF-8."""
    for name, content in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return root


def jpegs(*names: str, **size: int) -> dict[str, bytes]:
    """A small distinct JPEG for each name."""
    return {name: encoded(picture(number, **size)) for number, name in enumerate(names)}


def read_all(source: Source) -> list[Item]:
    """Every item of a source, read as another process would read it."""
    chunks = list(source.chunks())
    source = pickle.loads(pickle.dumps(source))
    return [item for chunk in chunks for item in source.pictures(chunk)]


def pictures_of(source: Source) -> dict[str, Picture]:
    return {item.name: item for item in read_all(source) if isinstance(item, Picture)}


def notes_of(source: Source) -> dict[str, int]:
    """{what was odd about pictures that are kept: how many}."""
    return dict(Counter(item.reason for item in read_all(source) if isinstance(item, Note)))


def captions_of(source: Source) -> dict[str, str | tuple[str, ...]]:
    """By picture its one caption, or all where it has several."""
    caption = Captioner(source.caption_template, source.columns)
    return {name: item.captions or caption(item.columns) for name, item in pictures_of(source).items()}


class Swatches:
    """Source of `count` smooth arrays of `size_px`, in chunks of `chunk_size`."""

    columns = ("title", "artist")
    caption_template = "{artist} / {title}"

    def __init__(self, count: int, *, size_px: int = 16, chunk_size: int = 8) -> None:
        self.name, self.count = "swatches", count
        self._size_px, self._chunk_size = size_px, chunk_size

    def describe(self) -> dict[str, Any]:
        return {"kind": "swatches", "count": self.count, "size_px": self._size_px}

    def left_out(self) -> dict[str, int]:
        return {}

    def chunks(self) -> Iterator[range]:
        for start in range(0, self.count, self._chunk_size):
            yield range(start, min(start + self._chunk_size, self.count))

    def pictures(self, chunk: range) -> Iterator[Item]:
        for number in chunk:
            image = picture(number, width=self._size_px, height=self._size_px)
            columns = {"title": f"Swatch {number}", "artist": "None"}
            yield Picture(image, columns, identity=b"swatch/%d" % number, name=f"swatch {number}")


class Told(Swatches):
    """Source that gives for each swatch what `items(number)` says: changes to its Picture, or others in its place."""

    columns = None
    caption_template = None

    def __init__(self, count: int, items: Callable[[int], Any], *, name: str = "told") -> None:
        super().__init__(count)
        self.name, self._items = name, items

    def describe(self) -> dict[str, Any]:
        return super().describe() | {"kind": self.name}

    def left_out(self) -> dict[str, int]:
        return {"files with the suffix .heic": 2}

    def pictures(self, chunk: range) -> Iterator[Item]:
        for number, picture in zip(chunk, super().pictures(chunk), strict=True):
            told = self._items(number)
            if isinstance(told, dict):
                yield replace(picture, columns={"title": f"Swatch {number}"}, **told)
            else:
                yield from told


class FussyError(Exception):
    """Cannot be unpickled: its constructor wants two arguments, and `args` holds one."""

    def __init__(self, number: int, what: str) -> None:
        super().__init__(f"{number} {what}")


def raise_fussy_error(number: int) -> None:
    raise FussyError(number, "of two")
