"""What the columns of one parquet file hold, so that files of other columns or another order read alike."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from diffusion_art.captions.columns import caption_columns, ready_captions
from diffusion_art.errors import UserError
from diffusion_art.sources.metadata import text_of
from diffusion_art.sources.parquet_columns import image_columns, label_text, labels_of, text_columns
from diffusion_art.sources.parquet_rows import broken
from diffusion_art.sources.splits import divide, split_column, split_of_folder
from diffusion_art.sources.texts import decode

EMPTY_ROW = "rows without a picture"
PACKED_COLUMN = "json"  # the hub's: what a WebDataset has in .json files
STATUS_COLUMN = "status"  # img2dataset's: "success", or why a link gave no picture


@dataclass(frozen=True)
class Layout:
    """The column of images, the columns of text, and `labels`: (column of class numbers, the names of its classes).

    `packed` are those of the texts that lie in a column of records, as the hub's parquet of WebDatasets has them.
    """

    image: str
    may_name_files: bool  # a struct with a path, of which a row may give nothing else
    texts: tuple[str, ...]
    labels: tuple[tuple[str, tuple[str, ...]], ...]
    packed: tuple[str, ...] = ()

    @property
    def columns(self) -> tuple[str, ...]:
        """What is read of a file."""
        return (*self._plain, *([PACKED_COLUMN] if self.packed else []), self.image)

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
    def split_labels(self) -> tuple[str, ...]:
        """The names behind the numbers in the column of splits; none where it has words."""
        return dict(self.labels).get(self.split_column or "", ())

    def split_of(self, value: Any) -> str | None:
        """What a value in the column of splits says."""
        return split_of_folder(label_text(self.split_labels, value) if self.split_labels else str(value))

    def texts_of(self, row: dict[str, Any]) -> dict[str, str]:
        """The text columns of a row as a caption may use them."""
        texts = {name: text_of(name, value) or "" for name, value in self._values(row).items()}
        return texts | {name: label_text(names, row[name]) for name, names in self.labels}

    def captions_of(self, row: dict[str, Any]) -> list[str]:
        return ready_captions(self._values(row)) if self.has_captions else []

    def _values(self, row: dict[str, Any]) -> dict[str, Any]:
        packed = row.get(PACKED_COLUMN) if self.packed else None
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
    """What a column of splits divides: nothing, off a test split, or also a validation split."""

    named: tuple[tuple[str, str | None], ...] = ()

    def of(self, row: dict[str, Any], layout: Layout, split_of_file: str | None) -> str | None:
        """ "train", "val", "test", or None where a hash decides. Files count before rows, but for `test`."""
        word = layout.split_of(row[column]) if self.named and (column := layout.split_column) else None
        said = dict(self.named).get(word or "train")
        return said if said == "test" else split_of_file or said


def layout_of(schema: pa.Schema, image_column: str | None) -> Layout | None:
    """None for a file without a column of images, or without the one called `image_column`."""
    images = [name for name in image_columns(schema) if image_column in (None, name)]
    if not images:
        return None
    labels = labels_of(schema)
    texts = text_columns(schema, labels, without=[images[0]])
    packed = _packed_columns(schema, without=[images[0], *texts])
    named = tuple((name, tuple(names)) for name, names in labels.items() if name in texts)
    kind = schema.field(images[0]).type
    may_name_files = bool(pa.types.is_struct(kind)) and kind.get_field_index("path") >= 0
    return Layout(images[0], may_name_files, (*texts, *packed), named, packed)


def _packed_columns(schema: pa.Schema, *, without: list[str]) -> tuple[str, ...]:
    place = schema.get_field_index(PACKED_COLUMN)
    if place < 0 or not pa.types.is_struct(schema.field(place).type):
        return ()
    return tuple(text_columns(pa.schema(list(schema.field(place).type)), {}, without=without))


def row_splits(layouts: Mapping[str, Layout]) -> RowSplits:
    """From all values of the column of splits, in the files that have one."""
    words: set[str | None] = set()
    for file, layout in layouts.items():
        if (column := layout.split_column) is None:
            continue
        try:
            values = pq.read_table(file, columns=[column])[column].unique().to_pylist()
        except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
            raise UserError(broken(file, f"has no whole column `{column}` ({error})")) from error
        words |= set(map(layout.split_of, values))
    found = divide({word or "train": word for word in words})
    return RowSplits(tuple(sorted(found.items()))) if any(found.values()) else RowSplits()
