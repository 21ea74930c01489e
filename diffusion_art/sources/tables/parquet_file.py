"""One parquet file: what its columns are for, by their names, types and first rows, so that files of other columns or
another order read alike. Pictures, text that a caption can use, splits, or neither. And the picture in a cell: bytes, a
record of bytes and path, a list of either, or text in base64.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq

from diffusion_art.captions.columns import caption_columns, is_caption_column, ready_captions, text_of
from diffusion_art.errors import UserError
from diffusion_art.modes import DATA_URI, from_base64
from diffusion_art.sources.paths.names import others_are_made_from
from diffusion_art.sources.paths.splits import (
    NO_NUMBERS,
    NumberedSplits,
    divide,
    numbered_splits,
    split_column,
    split_of_flag,
    split_of_folder,
)
from diffusion_art.sources.pictures import looks_like_picture, pointer
from diffusion_art.sources.tables.classes import Labels, label_text, labels_of
from diffusion_art.sources.tables.json_shapes import tells_of_picture
from diffusion_art.sources.tables.texts import decode

EMPTY_ROW = "rows without a picture"
_PACKED = "json"  # the hub's: what a WebDataset has in .json files
STATUS_COLUMN = "status"  # img2dataset's: "success", or why a link gave no picture
_LOOKED_AT = 8
_READ_AHEAD_BYTES = 2**20  # streams a column instead of holding a whole row group in memory


@dataclass(frozen=True)
class Layout:
    """The column of images, the columns of text, and `labels`: (column of class numbers, the names of its classes).

    `packed` are those of the texts that lie in records in the column `packed_in`, as the hub's parquet of WebDatasets
    has them, or a `Sequence` of records.
    """

    image: str
    may_name_files: bool  # a struct with a path, of which a row may give nothing else
    texts: tuple[str, ...]
    labels: tuple[tuple[str, tuple[str, ...]], ...]
    packed: tuple[str, ...] = ()
    packed_in: str = ""

    @property
    def columns(self) -> tuple[str, ...]:
        """What is read of a file."""
        return (*self._plain, *([self.packed_in] if self.packed else []), self.image)

    @property
    def _plain(self) -> tuple[str, ...]:
        return tuple(name for name in self.texts if name not in self.packed)

    @property
    def has_captions(self) -> bool:
        known = caption_columns(self.texts)
        return bool(known.ready or known.telling)

    @property
    def split_column(self) -> str | None:
        return split_column(self._plain)

    @property
    def split_columns(self) -> tuple[str, ...]:
        """The column of splits, and flags such as `is_train`."""
        flags = (name for name in self._plain if split_of_flag(name))
        return (*([self.split_column] if self.split_column else []), *flags)

    @property
    def split_labels(self) -> tuple[str, ...]:
        """The names behind the numbers in the column of splits; none where it has words."""
        return dict(self.labels).get(self.split_column or "", ())

    def split_of(self, row: Mapping[str, Any]) -> str | None:
        """What a row says in the column of splits, in a word."""
        value = row[self.split_column] if self.split_column else None
        return split_of_folder(label_text(self.split_labels, value) if self.split_labels else str(value))

    def texts_of(self, row: dict[str, Any]) -> dict[str, str]:
        """The text columns of a row as a caption may use them."""
        texts = {name: text_of(name, value) or "" for name, value in self._values(row).items()}
        return texts | {name: label_text(names, row[name]) for name, names in self.labels}

    def captions_of(self, row: dict[str, Any]) -> list[str]:
        return ready_captions(self._values(row)) if self.has_captions else []

    def _values(self, row: dict[str, Any]) -> dict[str, Any]:
        packed = row.get(self.packed_in) if self.packed else None
        if isinstance(packed, list):
            packed = {name: [item[name] for item in packed if item] for name in self.packed}
        row = {**row, **dict.fromkeys(self.packed), **(packed or {})}
        return {name: _decoded(row[name]) for name in self.texts}

    def why_empty(self, row: dict[str, Any]) -> str:
        """Why a row whose image is null is left out: what img2dataset says of its link, if it says anything."""
        status = str(row.get(STATUS_COLUMN) or "")
        return EMPTY_ROW + (f" ({status})" if status and status != "success" else "")


def _decoded(value: Any) -> Any:
    return decode(value).text if isinstance(value, bytes) else value


@dataclass(frozen=True)
class RowSplits:
    """What columns of splits divide: nothing, off a test split, or also a validation split."""

    named: tuple[tuple[str, str | None], ...] = ()
    numbers: NumberedSplits = NO_NUMBERS

    def of(self, row: dict[str, Any], layout: Layout, split_of_file: str | None) -> str | None:
        """ "train", "val", "test", or None where a hash decides. Files count before rows, but for `test`."""
        word = layout.split_of(row) or self.numbers.of(row) if self.named else None
        said = dict(self.named).get(word or "train")
        return said if said == "test" else split_of_file or said


def layout_in(opened: pq.ParquetFile, image_column: str | None, *, in_text: bool = True) -> Layout | None:
    """None for a file without a column of images, or without the one called `image_column`; with `in_text` those in
    base64 count.
    """
    schema = opened.schema_arrow
    images = [name for name in image_columns(schema) if image_column in (None, name)]
    if in_text and not images:
        images = [name for name in _base64_columns(opened) if image_column in (None, name)]
    return layout_of(schema, images[0]) if images else None


def layout_of(schema: pa.Schema, image: str) -> Layout:
    """With the pictures in column `image`."""
    labels = labels_of(schema)
    texts = text_columns(schema, labels, without=[image])
    packed_in, packed = _packed_columns(schema, texts, without=[image, *texts])
    named = tuple((name, tuple(names)) for name, names in labels.items() if name in texts)
    kind = item_type(schema.field(image).type)
    may_name_files = bool(pa.types.is_struct(kind)) and kind.get_field_index("path") >= 0
    return Layout(image, may_name_files, (*texts, *packed), named, packed, packed_in)


def _base64_columns(opened: pq.ParquetFile) -> list[str]:
    """The columns of text whose first values are pictures in base64."""
    texts = [field.name for field in opened.schema_arrow if pa.types.is_string(field.type)]
    texts += [field.name for field in opened.schema_arrow if pa.types.is_large_string(field.type)]
    try:
        batch = next(opened.iter_batches(_LOOKED_AT, columns=texts, use_threads=False), None) if texts else None
        return [name for name in texts if batch and any(map(is_base64, batch[name].to_pylist()))]
    except (pa.ArrowException, OSError, UnicodeDecodeError, KeyError):
        return []


def _packed_columns(schema: pa.Schema, texts: list[str], *, without: list[str]) -> tuple[str, tuple[str, ...]]:
    """The one column of records that tell of the picture, and the texts in it; none where others have captions."""
    known, found = caption_columns(texts), {}
    for field in schema:
        if field.name in without or not pa.types.is_struct(kind := item_type(field.type)):
            continue
        inner = tuple(text_columns(pa.schema(list(kind)), {}, without=without))
        told = caption_columns(inner)
        if field.name == _PACKED:
            return _PACKED, inner
        if (
            (told.ready or (told.art and kind == field.type))
            and not (known.ready or known.telling)
            and tells_of_picture(field.name, known)
        ):
            found[field.name] = inner
    return next(iter(found.items())) if len(found) == 1 else ("", ())


def row_splits(layouts: Mapping[str, Layout]) -> RowSplits:
    """From all values of the columns of splits, in the files that have any."""
    rows: list[tuple[Layout, dict[str, Any]]] = []
    for file, layout in layouts.items():
        if not (columns := list(layout.split_columns)):
            continue
        with explained(file, f"has no whole column `{columns[0]}`"):
            values = pq.read_table(file, columns=columns).group_by(columns).aggregate([]).to_pylist()
        rows += [(layout, row) for row in values]
    unlabelled = [row for layout, row in rows if not layout.split_labels]
    numbers = numbered_splits(unlabelled)
    words = {layout.split_of(row) or numbers.of(row) for layout, row in rows}
    found = divide({word or "train": word for word in words})
    return RowSplits(tuple(sorted(found.items())) if any(found.values()) else (), numbers)


def open_parquet(file: str) -> pq.ParquetFile:
    """UserError for a file that is no whole parquet file."""
    with suppress(OSError), Path(file).open("rb") as opened:
        if other := pointer(opened.read(32)):
            raise UserError(f"{file} is {other}.")
    with explained(file, "is no whole parquet file"):
        return pq.ParquetFile(file, buffer_size=_READ_AHEAD_BYTES)


def holds_pictures(file: str, column: str) -> bool:
    """Whether the first images in a column are what the name or the type of the column says; empty ones may be."""
    with explained(file, "cannot be read"):
        batch = next(open_parquet(file).iter_batches(_LOOKED_AT, columns=[column], use_threads=False), None)
        values = batch[column].to_pylist() if batch else []
    found = [data for value in values if (data := cell_of(value).data)]
    return not found or any(map(looks_like_picture, found))


@contextmanager
def explained(file: str, what: str) -> Iterator[None]:
    """What goes wrong while a file is read, as a UserError."""
    try:
        yield
    except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
        raise UserError(broken(file, f"{what} ({error})")) from error


def broken(file: str, what: str) -> str:
    return f"{file} {what}. Copy or download it again."


# ---------------------------------------------------------------------- what a column is for, by its type

LIKELY_IMAGE = re.compile("image|img|picture|photo|pixel|painting|jpe?g|png")
IMAGE_COLUMNS = ("image", "jpg", "jpeg", "png", "webp", "img", "picture")  # preferred in this order


def image_columns(schema: pa.Schema, *, paths: bool = True) -> list[str]:
    """Columns of image bytes, the likeliest first, lists of them last; with `paths` also those with a struct of a path
    alone.
    """
    found = [field.name for field in schema if _holds_bytes(field.type) or (paths and _holds_path(field.type))]
    lists = [field.name for field in schema if is_list(field.type) and _holds_bytes(field.type.value_type)]
    lower = {name.lower(): name for name in reversed(found)}
    named = [lower[name] for name in IMAGE_COLUMNS if name in lower]
    return list(dict.fromkeys([*named, *_likeliest_first(found), *_likeliest_first(lists)]))


def _likeliest_first(columns: list[str]) -> list[str]:
    return sorted(
        columns,
        key=lambda name: (is_caption_column(name), not LIKELY_IMAGE.search(name.lower()), others_are_made_from(name)),
    )


def text_columns(schema: pa.Schema, labels: Labels, *, without: list[str]) -> list[str]:
    """Columns worth a caption: text, numbers, dates, lists of text, classes; captions as records or bytes too."""
    wanted = (field for field in schema if field.name not in without)
    return [
        field.name
        for field in wanted
        if _is_text(field.type)
        or field.name in labels
        or _holds_path(field.type)
        or (is_caption_column(field.name) and (pa.types.is_nested(field.type) or _holds_bytes(field.type)))
    ]


def is_list(kind: pa.DataType) -> bool:
    return pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind)


def item_type(kind: pa.DataType) -> pa.DataType:
    """Of a list that of its items, else the type itself."""
    return kind.value_type if is_list(kind) else kind


def _holds_bytes(kind: pa.DataType) -> bool:
    if pa.types.is_struct(kind):
        return kind.get_field_index("bytes") >= 0
    return pa.types.is_binary(kind) or pa.types.is_large_binary(kind) or pa.types.is_binary_view(kind)


def _holds_path(kind: pa.DataType) -> bool:
    return bool(pa.types.is_struct(kind)) and kind.get_field_index("path") >= 0 and kind.get_field_index("bytes") < 0


def _is_text(kind: pa.DataType) -> bool:
    if pa.types.is_dictionary(kind) or pa.types.is_list(kind) or pa.types.is_large_list(kind):
        kind = kind.value_type
        kind = kind.value_type if pa.types.is_dictionary(kind) else kind
        return pa.types.is_string(kind) or pa.types.is_large_string(kind)
    return not pa.types.is_nested(kind) and not _holds_bytes(kind)


# ---------------------------------------------------------------------- the picture in a cell

_HEAD_CHARACTERS = 64  # of base64: 48 bytes of a picture


class Cell(NamedTuple):
    """The first picture in a cell, as bytes or by its path, and how many more there are."""

    data: bytes | None
    path: str | None = None
    more: int = 0


def cell_of(value: Any) -> Cell:
    if isinstance(value, list):
        filled = [item for item in value if item is not None]
        return cell_of(filled[0])._replace(more=len(filled) - 1) if filled else Cell(None)
    if isinstance(value, dict):
        return Cell(value.get("bytes"), value.get("path"))
    return Cell(from_base64(value) if isinstance(value, str) else value)


def identity_of(value: Any) -> bytes | str | None:
    """What tells the picture in a cell from another: its bytes or its text, or its path where there are none."""
    if isinstance(value, str):
        return value
    cell = cell_of(value)
    return cell.data or cell.path


def is_base64(value: Any) -> bool:
    """Whether a text is a picture, by its first characters."""
    if not isinstance(value, str):
        return False
    uri = DATA_URI.match(value)
    start = uri.end() if uri else 0
    return looks_like_picture(from_base64(value[start : start + _HEAD_CHARACTERS]))
