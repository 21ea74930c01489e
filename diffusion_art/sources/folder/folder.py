"""A folder of picture files, with captions from wherever the collections of the field keep them.

    paintings/starry-night.jpg      a picture, at any depth
    paintings/starry-night.txt      its captions, one a line, or `.caption`; or else
    paintings/metadata.jsonl        {"file_name": "starry-night.jpg", "title": "The Starry Night"} per line
    paintings/anything.csv          or any table (.csv .tsv .json .jsonl .parquet) that names pictures
    paintings/starry-night.json     columns of the one picture
    post-impressionism/...          the folder's name, where nothing else is

docs/collections.md has the whole list. A picture that nothing describes has an empty caption and takes part
unconditionally.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import cached_property
from pathlib import Path
from typing import Any

from diffusion_art.captions.captioner import default_template
from diffusion_art.errors import UserError
from diffusion_art.sources.base import BadPicture, Item, LeftOut, Note, Picture
from diffusion_art.sources.folder.beside import read_beside
from diffusion_art.sources.folder.collection import Collection, Entry, collect
from diffusion_art.sources.folder.copies import small_copies
from diffusion_art.sources.folder.sidecars import read_sidecars
from diffusion_art.sources.paths.listing import Listing, list_files, picture_suffixes
from diffusion_art.sources.paths.names import data_set_name, names_of_columns, regularisation
from diffusion_art.sources.pictures import no_reader
from diffusion_art.sources.tables.classes import ClassNames, with_names
from diffusion_art.sources.tables.texts import overlaid

FILES_PER_CHUNK = 64

_OF_THE_WHOLE = ("_listing", "_copies", "_collection")  # what a source knows of its folder


class ImageFolder:
    """Source: picture files below `path`, in the order of their names.

    The folder is listed at once; tables are read when something of theirs is asked for. `listing` is the folder's,
    where it was listed before.

    Raises:
        UserError: no folder, no picture in it, or (when they are read) a `metadata.*` file that is damaged.
    """

    def __init__(
        self,
        path: str | Path,
        *,
        name: str | None = None,
        caption_template: str | None = None,
        listing: Listing | None = None,
    ) -> None:
        self.path = Path(path)
        if not self.path.is_dir():
            raise UserError(f"there is no folder {self.path}. Give the folder of pictures: source.path=...")
        self.name = name or data_set_name(self.path)
        self._given_template = caption_template
        self._listing = listing or list_files(self.path)
        if not self._listing.pictures():
            kinds = " ".join(sorted(picture_suffixes()))
            raise UserError(f"{self.path} holds no pictures, {kinds}{self._listing.told()}. Give: source.path=...")

    @property
    def count(self) -> int | None:
        return len(self._collection.entries)

    @property
    def columns(self) -> tuple[str, ...] | None:
        return self._collection.columns if self._collection.all_columns_known else None

    @property
    def caption_template(self) -> str | None:
        if self._given_template or not self._collection.alike:
            return self._given_template
        return default_template(self._collection.columns)

    def describe(self) -> dict[str, Any]:
        pictures = self._listing.pictures()
        more = {  # earlier versions did not read such columns, and took these for pictures to learn from
            "folder_columns": names_of_columns(pictures),
            "regularisation": "left out" if regularisation(pictures) else "",
            "copies": "left out" if self._copies else "",
        }
        told = {"kind": "folder", "version": 2, "files": self._listing.digest()}
        return told | {name: value for name, value in more.items() if value}

    def left_out(self) -> dict[str, int]:
        return dict(self._listing.left_out + self._collection.left_out)

    def chunks(self) -> Iterator[list[Entry | Note]]:
        notes = [Note(self.name, reason) for reason in self._collection.notes.elements()]
        items: list[Entry | Note] = [*notes, *self._collection.entries]
        for start in range(0, len(items), FILES_PER_CHUNK):
            yield items[start : start + FILES_PER_CHUNK]

    def pictures(self, chunk: list[Entry | Note]) -> Iterator[Item]:
        for item in chunk:
            if isinstance(item, Note):
                yield item
            else:
                yield from self._read(item)

    def _read(self, entry: Entry) -> Iterator[Item]:
        try:
            image = (self.path / entry.file).read_bytes()
            beside = read_beside(self.path, entry.texts, entry.json)
            of_programs, notes = read_sidecars(self.path, entry.sidecars)
        except (OSError, ValueError) as error:
            if not self.path.is_dir():
                raise UserError(
                    f"this machine has no folder {self.path}. Put the pictures where all machines find them by that "
                    "name, or take engine=local."
                ) from error
            yield BadPicture(entry.file, str(error))
            return
        if reason := no_reader(image):
            yield LeftOut(entry.file, reason)
            return
        yield from (Note(entry.file, note) for note in (*beside.notes, *notes))
        captions = beside.captions or list(entry.captions) or beside.row_captions
        if captions:
            of_programs.pop("caption", None)
        columns = {"file_name": entry.file} | entry.from_path | of_programs
        told = {name: text for name, text in beside.columns.items() if text != entry.file.rpartition("/")[2]}
        columns = overlaid(overlaid(columns, told), entry.columns)  # the title in Google's takeouts is the file's name
        if beside.text:
            columns["caption"] = beside.text if len(captions) < 2 else captions[0]
        several = tuple(captions) if len(captions) > 1 else ()
        if self._class_names and (number := entry.file.rpartition("/")[0].rpartition("/")[2]).isdigit():
            columns.setdefault("label", number)  # `0/a.jpg` of class 0
        columns = with_names(columns, self._class_names)
        yield Picture(image, columns, identity=image, name=entry.file, captions=several, split=entry.split)

    @cached_property
    def _collection(self) -> Collection:
        return collect(self._listing, self._copies)

    @cached_property
    def _copies(self) -> dict[str, str]:
        return small_copies(self._listing)

    @cached_property
    def _class_names(self) -> ClassNames:
        return self._collection.class_names

    def __getstate__(self) -> dict[str, Any]:
        """The entries travel in the chunks, not with the source to every process, which may run in another folder."""
        held = {"_class_names": self._class_names}  # which other processes cannot read
        held |= {name: value for name, value in self.__dict__.items() if name not in _OF_THE_WHOLE}
        return {**held, "path": self.path.absolute()}
