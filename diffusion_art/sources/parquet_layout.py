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
STATUS_COLUMN = "status"  # img2dataset's: "success", or why a link gave no picture


@dataclass(frozen=True)
class Layout:
    """The column of images, the columns of text, and `labels`: (column of class numbers, the names of its classes)."""

    image: str
    may_name_files: bool  # a struct with a path, of which a row may give nothing else
    texts: tuple[str, ...]
    labels: tuple[tuple[str, tuple[str, ...]], ...]

    @property
    def has_captions(self) -> bool:
        known = caption_columns(self.texts)
        return bool(known.ready or known.telling)

    @property
    def split_column(self) -> str | None:
        return split_column(self.texts)

    @property
    def split_labels(self) -> tuple[str, ...]:
        """The names behind the numbers in the column of splits; none where it has words."""
        return dict(self.labels).get(self.split_column or "", ())

    def split_of(self, value: Any) -> str | None:
        """What a value in the column of splits says."""
        return split_of_folder(label_text(self.split_labels, value) if self.split_labels else str(value))

    def texts_of(self, row: dict[str, Any]) -> dict[str, str]:
        """The text columns of a row as a caption may use them."""
        texts = {name: text_of(name, _decoded(row[name])) or "" for name in self.texts}
        return texts | {name: label_text(names, row[name]) for name, names in self.labels}

    def captions_of(self, row: dict[str, Any]) -> list[str]:
        return ready_captions({name: _decoded(row[name]) for name in self.texts}) if self.has_captions else []

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
    named = tuple((name, tuple(names)) for name, names in labels.items() if name in texts)
    kind = schema.field(images[0]).type
    may_name_files = bool(pa.types.is_struct(kind)) and kind.get_field_index("path") >= 0
    return Layout(images[0], may_name_files, tuple(texts), named)


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
