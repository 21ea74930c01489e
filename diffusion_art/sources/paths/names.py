"""What the names of files and folders say: which picture a table means, who painted what, what to call the data set.

A folder's name says a class of pictures, columns (Hive's `style=Cubism/`), nothing (`images/`), or what kohya's are
for: `img/10_name/` holds pictures to learn from, each ten times; `reg/1_person/` beside it those that keep a
fine-tuned model from forgetting, which do not belong to the collection.

Names are compared in Unicode's composed form (NFC): a Mac's disk writes them decomposed, tables seldom do.
"""

from __future__ import annotations

import posixpath
import re
import unicodedata
from collections.abc import Collection, Iterable, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any
from urllib.parse import unquote

from diffusion_art.sources.paths.listing import PICTURE_SUFFIXES, grouped, stem_of, suffix_of
from diffusion_art.sources.paths.splits import FolderSplits

_NUMBERED = re.compile(r"#\d+$")  # Flickr8k.token.txt: 1000268201.jpg#0
_UPLOADED = re.compile(r"(?:.*/)?[0-9a-f]{8}-([^/]+)")  # Label Studio's /data/upload/3/1e5cfd21-a.jpg
_OF_FLICKR = re.compile(r"(?:.*_)?([1-9]\d{4,})(?:_[0-9a-f]{10})?_o")
_MADE_FROM = re.compile(r"source|input|condition|control|hint|mask|original|before|reference")
# A second underscore is no WikiArt; some letter stands on each side.
_ARTIST_TITLE = re.compile(r"(?=[^_]*[^\W\d_])([^_]+)_(?=[^_]*[^\W\d_])([^_]+)")
_YEAR = re.compile(r"[-\s]+(1[0-9]{3}|20[0-9]{2})(?:-?\(?\d{1,2}\)?)?$")
_COPY = re.compile(r"\s*\(\d{1,2}\)$")
_UUID = re.compile(r"_[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f-]+$")  # behind Midjourney's
STEM = "stem"  # the column of a template for `words_of_name`
_SAYS_NOTHING = {"data", "train", "images", "shards", "parquet", "dataset", ""}  # folders that say nothing


def nfc(text: str) -> str:
    return text if text.isascii() else unicodedata.normalize("NFC", text)


def words(name: str) -> str:
    """A name made for a computer as words: `Abstract_Expressionism`, `claude-monet`."""
    return " ".join(nfc(name).replace("_", " ").replace("-", " ").split())


def title_words(name: str) -> str:
    """The same with capitals: `claude-monet` is Claude Monet."""
    return " ".join(word[:1].upper() + word[1:] for word in words(name).split())


def words_of_name(columns: Mapping[str, Any]) -> str:
    """What the name of a picture's file says, for people who write their captions there: `a_red_house (2).jpg`."""
    file = str(columns.get("file_name") or columns.get("filename") or "")
    stem = _COPY.sub("", stem_of(nfc(file)).rpartition("/")[2])
    return " ".join(_UUID.sub("", stem).replace("_", " ").split())


def others_are_made_from(column: str) -> bool:
    """Whether the pictures of a column are what those that a caption tells of were made from: ControlNet's `source`
    beside `target`, `input_image` beside `edited_image`.
    """
    return bool(_MADE_FROM.search(column.lower()))


class PictureNames:
    """Finds the picture that a text in a table or a parquet row means, among the posix paths `files`. Of `copies` only
    the path means one.
    """

    def __init__(self, files: Iterable[str], copies: Iterable[str] = ()) -> None:
        self._files = {nfc(file): file for file in files}
        self._paths = {nfc(copy): copy for copy in copies} | self._files

    def __len__(self) -> int:
        return len(self._files)

    def find(self, name: str, folder: str = "") -> str | None:
        """The one picture called `name`, None where there is none or several would do.

        `name` is relative to `folder` or to the root; longer paths, as of another machine, and addresses count by
        their last parts. Upper and lower case matter only between pictures that differ in nothing else. A name
        without a suffix stands for the picture whose name is that before the suffix, a number also for one with zeros
        before it. A bare name, without folders, means none outside a `folder` that holds pictures.
        """
        if (file := self._paths.get(f"{folder}/{name}" if folder else name)) is not None:
            return file
        name = nfc(name.strip()).replace("\\", "/")
        name = name.partition("?")[0] if "://" in name else _NUMBERED.sub("", name)
        file = self._find(name, folder) or (self._find(nfc(unquote(name)), folder) if "%" in name else None)
        if file is None and (uploaded := _UPLOADED.fullmatch(name)):
            name = unquote(uploaded[1])
            file = self._find(name, folder)
        return None if file and self._is_anothers(file, unquote(name), folder) else file

    def _is_anothers(self, file: str, name: str, folder: str) -> bool:
        """Whether a bare name was found elsewhere, though `folder` holds pictures of its own, of which it means one."""
        bare = "/" not in name.removeprefix("./")
        return bare and bool(folder) and folder in self._folders and not file.startswith(f"{folder}/")

    def _find(self, name: str, folder: str) -> str | None:
        for place in (posixpath.normpath(posixpath.join(folder, name)), posixpath.normpath(name)):
            if place in self._paths:
                return self._paths[place]
        parts = [part for part in name.split("/") if part not in ("", ".", "..")]
        if not parts:
            return None
        whole = self._best(self._by_base.get(parts[-1].casefold(), []), parts, folder)
        if whole is not None or suffix_of(name) in PICTURE_SUFFIXES:
            return whole
        stem = parts[-1].casefold()
        found = self._by_stem.get(stem) or self._by_number.get(_number(stem), [])
        return self._best(found, parts, folder)

    def named_exactly(self, name: str, folder: str = "") -> bool:
        """Whether `name` has a suffix and is found: surer than a bare number."""
        return suffix_of(_NUMBERED.sub("", name.strip())) not in ("", ".0") and self.find(name, folder) is not None

    def by_stem(self, name: str, folder: str = "") -> str | None:
        """The one picture that has the name of one that is not here, but for the suffix: `a.png` for `a.jpg`.

        Of several folders of pictures, it lies in that of the name, or in that of the table.
        """
        name = nfc(unquote(name.partition("?")[0] if "://" in name else name).strip()).replace("\\", "/")
        if suffix_of(name) not in PICTURE_SUFFIXES or self.find(name, folder) is not None:
            return None
        parent, _, stem = stem_of(name).rpartition("/")
        candidates = self._by_stem.get(stem.casefold(), [])
        places = {parent.rpartition("/")[2]} if parent.strip("./") else {folder.rpartition("/")[2]}
        if len(self._folders) > 1:
            candidates = [file for file in candidates if posixpath.dirname(file).rpartition("/")[2] in places]
        return candidates[0] if len(candidates) == 1 else None

    def one_in(self, folder: str) -> str | None:
        """The one picture that lies directly in `folder`, None where there is another number of them."""
        found = self._in_folders.get(folder, [])
        return found[0] if folder and len(found) == 1 else None

    def folders_in(self, folder: str) -> list[str]:
        """The names of the folders in `folder` that hold pictures, at any depth."""
        start = f"{folder}/" if folder else ""
        below = (nfc(other)[len(start) :] for other in self._folders if nfc(other).startswith(start))
        return sorted({name for path in below if (name := path.partition("/")[0])})

    def _best(self, candidates: list[str], parts: list[str], folder: str) -> str | None:
        """The candidate that shares most of the last parts, and of several such the only one in the nearest folder
        around the table that holds any; None where that does not tell.
        """
        if len(candidates) < 2:
            return next(iter(candidates), None)
        wanted = [*folder.split("/"), *parts]
        shared = [_shared_end(nfc(file), wanted) for file in candidates]
        best = [file for file, count in zip(candidates, shared) if count == max(shared)]
        while len(best) > 1 and folder:
            inside = [file for file in best if nfc(file).startswith(f"{folder}/")]
            best, folder = inside or best, "" if inside else posixpath.dirname(folder)
        return best[0] if len(best) == 1 else None

    def namesakes(self, name: str, folder: str = "") -> list[str]:
        """The pictures that have the file name in `name`, where `find` cannot tell which of several it means."""
        base = posixpath.basename(nfc(unquote(name.partition("?")[0])).strip().replace("\\", "/")).casefold()
        found = self._by_base.get(base, []) if base else []
        return found if len(found) > 1 and self.find(name, folder) is None else []

    @property
    def _folders(self) -> Collection[str]:
        return self._in_folders.keys()

    @cached_property
    def _in_folders(self) -> dict[str, list[str]]:
        return grouped((posixpath.dirname(file), file) for file in self._files.values())

    @cached_property
    def _by_base(self) -> dict[str, list[str]]:
        return grouped((file[file.rfind("/") + 1 :].casefold(), path) for file, path in self._files.items())

    @cached_property
    def _by_stem(self) -> dict[str, list[str]]:
        stems = ((stem_of(file)[file.rfind("/") + 1 :].casefold(), path) for file, path in self._files.items())
        return grouped(stems)

    @cached_property
    def _by_number(self) -> dict[str, list[str]]:
        numbers = ((_id_in(stem), path) for stem, paths in self._by_stem.items() for path in paths)
        return grouped((number, path) for number, path in numbers if number)


def _number(stem: str) -> str:
    """The number that a name is, without zeros around it: `0012` and `12.0` are 12; "" for another name."""
    whole = stem.removesuffix(".0")
    return whole.lstrip("0") or "0" if whole.isdecimal() else ""


def _id_in(stem: str) -> str:
    """The number that a name is, or that Flickr writes into it: `sunset_7085146945_o`."""
    of_flickr = _OF_FLICKR.fullmatch(stem)
    return of_flickr[1] if of_flickr else _number(stem)


def paintings(files: Iterable[str]) -> bool:
    """Whether pictures are named `artist_title.jpg`, as in ArtBench and Kaggle's WikiArt."""
    stems = [stem_of(file)[file.rfind("/") + 1 :] for file in files]
    matches = [match for stem in stems if (match := _ARTIST_TITLE.fullmatch(stem))]
    dashed = sum("-" in match[0] for match in matches)
    full_names = any("-" in match[1] for match in matches)
    return full_names and len(matches) >= 0.9 * len(stems) and dashed >= 0.5 * len(matches)


def painting(file: str) -> dict[str, str]:
    """artist, title and date from `claude-monet_water-lilies-1919.jpg`; {} for another kind of name."""
    match = _ARTIST_TITLE.fullmatch(nfc(stem_of(file)[file.rfind("/") + 1 :]))
    if match is None:
        return {}
    title = match[2]
    year = _YEAR.search(title)
    title = title[: year.start()] if year else _COPY.sub("", title)
    return {"artist": title_words(match[1]), "title": title_words(title), "date": year[1] if year else ""}


def _shared_end(file: str, wanted: list[str]) -> int:
    parts, count = file.split("/")[::-1], 0
    for have, want in zip(parts, wanted[::-1]):
        if have.casefold() != want.casefold() and (count or stem_of(have).casefold() != want.casefold()):
            break
        count += 1
    return count


def data_set_name(path: Path) -> str:
    """The nearest telling part of `path` as a folder name: lower case, digits, `-` and `_`.

    `WikiArt/data` is `wikiart`; `My Paintings.tar` is `my-paintings`.
    """
    path = path.resolve()
    parts = [path.stem if path.is_file() else path.name, *(parent.name for parent in path.parents)]
    return next((slug for part in parts if (slug := _slug(part)) not in _SAYS_NOTHING), "pictures")


def _slug(text: str) -> str:
    plain = unicodedata.normalize("NFKD", text).encode("ascii", "ignore").decode().lower()
    return re.sub(r"[^a-z0-9_]+", "-", plain).strip("-_")


# ---------------------------------------------------------------------- what folders say

_REPEATS = re.compile(r"(\d{1,4})_(?=\S)(.+)", re.DOTALL)  # 10_name
REGULARISATION = "pictures of kohya's folder for regularisation; to learn from them, give it as source.path"

_REGULARISATION = re.compile(r"reg(ulari[sz]ation)?(?:[_ -]?(?:images?|imgs?|data))?", re.IGNORECASE)
_IMAGES = {"image", "images", "img", "imgs", "jpegimages", "photos", "pictures", "jpg", "png"}
_LAYOUT_WORDS = _IMAGES | {"data", "dataset", "files", "resized", "cropped", "thumbnails", "thumbs"}
_CLASS_NUMBER = re.compile(r"^\d+\.\s*(?=[^\W\d_])")  # 001.Black_footed_Albatross
_PART = re.compile(r"(part|batch|chunk|shard|group|volume|vol|folder|dir|subset|set) ?\d+")  # of anything
_IN_CLASS_FOLDERS = 0.9  # of the pictures; where fewer are, folders are there for order
_WORD = re.compile(r"[^\W\d_]")
_COLUMN_AND_VALUE = re.compile(r"([^\W\d]\w*)=(.+)", re.DOTALL)  # Hive's style=Cubism
_HIVE_NULL = "__HIVE_DEFAULT_PARTITION__"


def is_layout(folder: str) -> bool:
    """Whether a folder's name tells nothing of the pictures in it: `flickr30k_images`, `part-00012`."""
    name = words(folder).lower()
    return name.rpartition(" ")[2] in _LAYOUT_WORDS or bool(_PART.fullmatch(name))


def columns_of_folders(file: str) -> dict[str, str]:
    """The columns that the folders above a file tell: Hive's `style=Cubism/artist=Juan%20Gris/0.parquet`."""
    if "=" not in file:
        return {}
    found = (_COLUMN_AND_VALUE.fullmatch(folder) for folder in file.split("/")[:-1])
    return {match[1]: "" if match[2] == _HIVE_NULL else nfc(unquote(match[2])) for match in found if match}


def names_of_columns(files: Iterable[str]) -> list[str]:
    """Of all columns that the folders above `files` tell."""
    return list(dict.fromkeys(name for file in files for name in columns_of_folders(file)))


class FolderNames:
    """The class that a folder's name gives to the pictures in it, and kohya's repeats (`10_name`)."""

    def __init__(self, splits: FolderSplits) -> None:
        self._splits = splits
        self._known: dict[str, tuple[str, str]] = {}

    def of(self, file: str) -> tuple[str, str]:
        """(name, repeats) of the nearest folder that tells anything, as text; ("", "") where none does."""
        folder = file[: max(file.rfind("/"), 0)]
        if folder not in self._known:
            self._known[folder] = self._read(folder)
        return self._known[folder]

    def _read(self, folder: str) -> tuple[str, str]:
        while folder:
            parent, _, name = folder.rpartition("/")
            numbered = _REPEATS.fullmatch(name)
            repeats, bare = (numbered[1], numbered[2]) if numbered else ("", name)
            telling = _WORD.search(bare) and not is_layout(bare) and not _COLUMN_AND_VALUE.fullmatch(bare)
            if telling and not self._splits.names(folder):
                return words(_CLASS_NUMBER.sub("", bare)), repeats.lstrip("0")
            folder = parent
        return "", ""


def class_names(files: Sequence[str], folders: FolderNames) -> list[str]:
    """The class of each picture by its folder; all "" where not nearly all lie in telling folders."""
    names = [folders.of(file)[0] for file in files]
    return names if sum(map(bool, names)) >= max(1, _IN_CLASS_FOLDERS * len(names)) else [""] * len(names)


def regularisation(files: Iterable[str]) -> set[str]:
    """The pictures in `reg/1_person/`, where another folder such as `img/10_name/` is beside it."""
    learnt: set[str] = set()
    apart: dict[str, list[str]] = {}
    for file in files:
        *folders, name, numbered, _ = ("", "", *file.split("/"))
        if not _REPEATS.fullmatch(numbered) or not name:
            continue
        parent = "/".join(folders)
        if _REGULARISATION.fullmatch(name):
            apart.setdefault(parent, []).append(file)
        else:
            learnt.add(parent)
    return {file for parent, found in apart.items() if parent in learnt for file in found}
