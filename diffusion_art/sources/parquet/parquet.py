"""Pictures in parquet files, as the Hugging Face hub keeps them: one row each, one column of image bytes.

The layout of `Artificio/WikiArt` (title artist date genre style description filename image), and any other
with an image column, be it a struct of bytes and path or plain binary. Class labels become their names.
Columns that no caption can use, such as embeddings, are never read. Neighbouring rows of one picture are one picture
with several captions. Rows are streamed: a few batches are held, also of a row group of many gigabytes.
"""

from __future__ import annotations

import hashlib
import re
from collections import Counter, deque
from collections.abc import Iterator
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow as pa

from diffusion_art.captions.captioner import default_template
from diffusion_art.captions.columns import is_caption_column
from diffusion_art.errors import UserError
from diffusion_art.sources.base import BadPicture, Item, LeftOut, Note, Picture
from diffusion_art.sources.paths.listing import Listing, digest, files_at, listing_at, told
from diffusion_art.sources.paths.names import PictureNames, columns_of_folders, data_set_name, names_of_columns
from diffusion_art.sources.paths.splits import TEST_SPLIT, splits_of_files
from diffusion_art.sources.pictures import no_reader
from diffusion_art.sources.tables.classes import class_names_in, with_names
from diffusion_art.sources.tables.parquet_file import (
    LIKELY_IMAGE,
    Layout,
    RowSplits,
    broken,
    cell_of,
    identity_of,
    image_columns,
    item_type,
    layout_in,
    open_parquet,
    row_splits,
)

ROWS_PER_CHUNK = 128  # about 2 MB of WikiArt, a third of a second of work
NO_PICTURE_FILES = "parquet files without pictures"
MORE = "pictures that are the first of several in column `{}`; the others of their rows are left out"

_LINK = re.compile(r"(.*[_-])?(url|urls|link|uri|href)")


class Rows(NamedTuple):
    """A chunk: rows [start, stop) of one row group, `first_row` being the file's number of its row 0."""

    file: str
    row_group: int
    start: int
    stop: int
    first_row: int
    layout: Layout
    split: str | None  # of the whole file
    row_splits: RowSplits  # what a column of splits says


class Parquet:
    """Source: a parquet file, or a folder with parquet files at any depth, read in the order of their names.

    Columns are matched by name, file by file. Files without pictures are left out.

    Raises:
        UserError: nothing there, a broken file, or no column of images in any.
    """

    def __init__(
        self,
        path: str | Path,
        *,
        name: str | None = None,
        image_column: str | None = None,
        caption_template: str | None = None,
        listing: Listing | None = None,
    ) -> None:
        self.path = Path(path)
        self.name = name or data_set_name(self.path)
        listing = listing or listing_at(self.path)
        files = files_at(self.path, listing, ".parquet", what="the parquet file or its folder")
        self._class_names = class_names_in(listing)
        pictures, self._left_out = listing.pictures(), listing.left_out.copy()
        self._beside = PictureNames(pictures)
        self._parts: dict[str, tuple[Layout, list[int]]] = {}  # by file: its columns, rows per row group
        self._read_footers(files, image_column)
        names = {file: self._below_root(file) for file in self._parts}
        self._splits = splits_of_files(names)
        layouts = list(dict.fromkeys(layout for layout, _ in self._parts.values()))
        if not any(layout.may_name_files for layout in layouts):
            self._left_out["pictures beside the parquet files"] += len(pictures)
            self._beside, pictures = PictureNames(()), []
        self._by_folders = names_of_columns(names.values())
        self._digest_beside = digest({file: listing.files[file] for file in pictures}) if pictures else None
        texts = list(dict.fromkeys([*self._by_folders, *(text for layout in layouts for text in layout.texts)]))
        self.count = sum(sum(rows) for file, (_, rows) in self._parts.items() if self._splits[file] != "test")
        self.columns = tuple(dict.fromkeys([*texts, "filename"]))
        self.caption_template = caption_template or default_template(texts)

    def describe(self) -> dict[str, Any]:
        files = [
            [self._below_root(file), Path(file).stat().st_size, _footer_digest(Path(file))] for file in self._parts
        ]
        layouts = [layout for layout, _ in self._parts.values()]
        divided, by_column = len(set(self._splits.values())) > 1, any(layout.split_column for layout in layouts)
        more = {
            "splits": list(self._splits.values()) if divided else [],
            "split_column": by_column,
            "version": 2 if divided and by_column else None,  # test rows of a file named `train` are left out
            "split_numbers": bool(self._by_row.numbers.note),
            "split_labels": any(layout.split_labels for layout in layouts),  # once taken for no splits
            "beside": self._digest_beside,  # pictures that rows may name
            "classes": self._class_names,
            "folder_columns": self._by_folders,  # which earlier versions did not read
        }
        told = {"kind": "parquet", "files": files, "image_column": layouts[0].image}
        return told | {name: value for name, value in more.items() if value}

    def left_out(self) -> dict[str, int]:
        tests = (rows for file, (_, rows) in self._parts.items() if self._splits[file] == "test")
        return dict(self._left_out + Counter({TEST_SPLIT: sum(map(sum, tests))}))

    def chunks(self) -> Iterator[Rows]:
        kept = {file: part for file, part in self._parts.items() if self._splits[file] != "test"}
        for file, (layout, groups) in kept.items():
            first_row = 0
            for group, rows in enumerate(groups):
                for start in range(0, rows, ROWS_PER_CHUNK):
                    stop = min(start + ROWS_PER_CHUNK, rows)
                    yield Rows(file, group, start, stop, first_row, layout, self._splits[file], self._by_row)
                first_row += rows

    def pictures(self, chunk: Rows) -> Iterator[Item]:
        for number, rows in pictures_in(chunk):
            item = self._picture(chunk, number, rows)
            if (note := chunk.row_splits.numbers.note) and isinstance(item, Picture):
                yield Note(item.name, note)
            if isinstance(item, Picture) and cell_of(rows[0][chunk.layout.image]).more:
                yield Note(item.name, MORE.format(chunk.layout.image))
            yield item

    @cached_property
    def _by_row(self) -> RowSplits:
        return row_splits({file: layout for file, (layout, _) in self._parts.items() if self._splits[file] != "test"})

    @property
    def _root(self) -> Path:
        return self.path if self.path.is_dir() else self.path.parent

    def _read_footers(self, files: list[str], image_column: str | None) -> None:
        known: dict[Layout, Layout] = {}  # one object for all files alike
        for file in files:
            opened = open_parquet(file)
            layout = layout_in(opened, image_column)
            if layout is None:
                self._left_out[NO_PICTURE_FILES] += 1
                continue
            groups = [opened.metadata.row_group(group).num_rows for group in range(opened.num_row_groups)]
            self._parts[file] = known.setdefault(layout, layout), groups
            for other in other_images(opened.schema_arrow, layout.image):
                self._left_out[f"pictures of column `{other}` (source.image_column={other} takes them)"] += sum(groups)
        if not self._parts:
            beside = self._left_out - Counter({NO_PICTURE_FILES: len(files)})
            raise UserError(
                f"{files[0]}: {without_images(open_parquet(files[0]).schema_arrow, image_column)}{told(beside)}"
            )

    def _picture(self, chunk: Rows, number: int, rows: list[dict[str, Any]]) -> Item:
        """`rows` are those of one picture."""
        layout = chunk.layout
        data, path, _ = cell_of(rows[0][layout.image])
        name = f"{Path(chunk.file).name} row {number}" + (f" ({path})" if path else "")
        split = chunk.row_splits.of(rows[0], layout, chunk.split)
        if split == "test":
            return LeftOut(name, TEST_SPLIT)
        if not data and path and (file := self._beside.find(path, self._folder_of(chunk.file))):
            data = _read_file(self._root / file)
        if not data:
            if path or data is not None:
                return BadPicture(name, f"no image bytes in column `{layout.image}`")
            return LeftOut(name, layout.why_empty(rows[0]))
        if reason := no_reader(data):
            return LeftOut(name, reason)
        texts = dict.fromkeys(self._by_folders, "") | columns_of_folders(self._below_root(chunk.file))
        texts |= layout.texts_of(rows[0])
        for row in rows[1:]:
            texts |= {column: text for column, text in layout.texts_of(row).items() if not texts[column]}
        texts = with_names(texts, self._class_names)
        if path and not texts.get("filename"):
            texts["filename"] = path
        captions = list(dict.fromkeys(text for row in rows for text in layout.captions_of(row)))
        several = tuple(captions) if len(captions) > 1 else ()
        return Picture(data, texts, identity=data, name=name, captions=several, split=split)

    def _folder_of(self, file: str) -> str:
        return self._below_root(file).rpartition("/")[0]

    def _below_root(self, file: str) -> str:
        return Path(file).relative_to(self._root).as_posix()


def other_images(schema: pa.Schema, chosen: str) -> list[str]:
    """Columns of images besides `chosen`, as far as their types or names leave no doubt."""
    found = (name for name in image_columns(schema) if name != chosen and not is_caption_column(name))
    return [
        name
        for name in found
        if pa.types.is_struct(item_type(schema.field(name).type)) or LIKELY_IMAGE.search(name.lower())
    ]


def without_images(schema: pa.Schema, asked: str | None) -> str:
    """Why a file gives no pictures, and what helps."""
    what = f"{f'`{asked}` is' if asked else 'there is'} no column of image bytes among {schema.names}."
    if asked and (found := image_columns(schema)):
        return f"{what} Those with images: {', '.join(found)}."
    if asked is None and any(_LINK.fullmatch(name.lower()) for name in schema.names):
        return f"{what} Its pictures are links: download them with img2dataset, and give the folder that it writes."
    names = [asked] if asked in schema.names else [name for name in schema.names if LIKELY_IMAGE.search(name.lower())]
    types = ", ".join(f"`{name}` is {str(schema.field(name).type)[:60]}" for name in names)
    return (
        f"{what} Images are bytes, or a struct of bytes and path{f'; {types}' if types else ''}. "
        "Where a column names picture files, use source=csv source.path=FILE."
    )


def _read_file(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError:
        return b""


def _footer_digest(file: Path) -> str:
    """Of the last 64 KiB: the parquet footer, with offsets and statistics of all columns."""
    with file.open("rb") as opened:
        opened.seek(max(0, file.stat().st_size - 2**16))
        return hashlib.blake2b(opened.read(), digest_size=8).hexdigest()


# ---------------------------------------------------------------------- rows, streamed


class RowReader:
    """Reads forwards: chunks come to a process in rising order, so that it seldom starts a row group anew."""

    def __init__(self) -> None:
        self._group: tuple[str, int, tuple[str, ...]] | None = None  # a file, its row group, and the columns to read
        self._batches: Iterator[pa.RecordBatch] = iter(())
        self._held: deque[tuple[int, pa.RecordBatch]] = deque()  # (number of its first row, batch), ascending
        self._next_row = 0  # that follows those held

    def rows(self, chunk: Rows, start: int, stop: int) -> list[dict[str, Any]]:
        """Rows [start, stop) of the row group of a chunk; fewer at its end. UserError where they cannot be read.

        The row before `start` stays at hand, for a chunk that looks back.
        """
        group = chunk.file, chunk.row_group, chunk.layout.columns
        try:
            if group != self._group or start < (self._held[0][0] if self._held else self._next_row):
                self._group = group
                self._begin(*group)
            found = []
            for first, batch in self._cover(start, stop):
                at = max(start - first, 0)
                found += batch.slice(at, min(stop - first, batch.num_rows) - at).to_pylist()
            return found
        except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
            self._group = None
            raise UserError(broken(chunk.file, f"row group {chunk.row_group} cannot be read ({error})")) from error

    def _begin(self, file: str, row_group: int, columns: tuple[str, ...]) -> None:
        self._next_row = 0
        self._held.clear()
        self._batches = open_parquet(file).iter_batches(
            ROWS_PER_CHUNK, row_groups=[row_group], columns=list(columns), use_threads=False
        )

    def _cover(self, start: int, stop: int) -> Iterator[tuple[int, pa.RecordBatch]]:
        """The batches that rows [start, stop) lie in; what ends before the row before `start` is let go."""
        while self._next_row < stop and (batch := next(self._batches, None)) is not None:
            self._held.append((self._next_row, batch))
            self._next_row += batch.num_rows
            while self._held and self._held[0][0] + self._held[0][1].num_rows < start:
                self._held.popleft()
        yield from (held for held in self._held if held[0] < stop and held[0] + held[1].num_rows > start)


_READER = RowReader()  # one per process; the source itself stays plain settings


def pictures_in(chunk: Rows) -> Iterator[tuple[int, list[dict[str, Any]]]]:
    """(number of its first row in the file, its rows) for each picture that begins in the chunk.

    Neighbours with the same image are one picture, also over the end of a chunk, where the rows have captions.
    """
    layout = chunk.layout
    look_around = layout.has_captions
    before = _READER.rows(chunk, chunk.start - 1, chunk.start) if look_around and chunk.start else []
    rows = _READER.rows(chunk, chunk.start, chunk.stop)
    if len(rows) < chunk.stop - chunk.start:
        raise UserError(broken(chunk.file, f"row group {chunk.row_group} has fewer rows than its footer says"))
    number, last = chunk.first_row + chunk.start, _image_of(before, layout)
    pictures: list[tuple[int, list[dict[str, Any]]]] = []
    for number, row in enumerate(rows, chunk.first_row + chunk.start):
        image = _image_of([row], layout)
        if not look_around or image is None or image != last:
            pictures.append((number, [row]))
        elif pictures:
            pictures[-1][1].append(row)
        last = image
    at = chunk.stop
    while look_around and pictures and last and _image_of(more := _READER.rows(chunk, at, at + 1), layout) == last:
        pictures[-1][1].extend(more)
        at += 1
    yield from pictures


def _image_of(rows: list[dict[str, Any]], layout: Layout) -> bytes | str | None:
    """What tells the image of the first of `rows` from another."""
    return identity_of(rows[0][layout.image]) if rows else None
