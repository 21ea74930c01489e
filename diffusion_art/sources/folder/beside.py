"""What lies beside one picture: `a.txt`, `a.caption` and `a.json`, or `a.jpg.txt` and its like, for `a.jpg`;
`a.tags` and `a.xmp` too.

Texts may also lie in a folder of their own beside that of the pictures: `captions/a.txt` for `images/a.jpg`; JSON in
`json/` or `metadata/`.
"""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Sequence
from contextlib import suppress
from functools import cached_property
from pathlib import Path
from typing import NamedTuple

from diffusion_art.captions.columns import ready_captions, text_of, unique
from diffusion_art.sources.paths.listing import (
    JSON_SUFFIXES,
    SIDECAR_SUFFIXES,
    TABLE_SUFFIXES,
    TEXT_SUFFIXES,
    Listing,
    grouped,
    stem_of,
    suffix_of,
)
from diffusion_art.sources.paths.names import is_layout, nfc
from diffusion_art.sources.programs.exports import of_wikitext
from diffusion_art.sources.programs.generators import prompt_of
from diffusion_art.sources.tables.table import read_json
from diffusion_art.sources.tables.texts import CP1252_NOTE, MAX_TEXT_BYTES, Decoded, alternatives, decode

_TEXT_FOLDER = re.compile(r"(?:\w+[_ -])?(captions?|texts?|txts?|prompts?|sentences?)(?:[_ -]\w{1,3})?")
_JSON_FOLDER = re.compile(r"jsons?|meta(?:data)?|sidecars?")
_BOX = re.compile(r"\d+(?: -?(?:\d+(?:\.\d*)?|\.\d+)(?:[eE]-?\d+)?){4,}")  # class, centre, size; or an outline
_ENTITY = re.compile(r"\[/EN#\d+/\S+ ([^\]]*)\]")  # of Flickr30k Entities: [/EN#1/people Two men]
_HYDRUS = "creator|artist|character|series|copyright|rating|person|studio|species|meta|title"
_TAG = re.compile(rf"(?:{_HYDRUS}):\S.*")
_TAKEOUT = re.compile(r"(.+)\.(s[a-z-]*)(\(\d+\))?")  # a.jpg.supplemental-metadata(1), cut anywhere; of a(1).jpg
_OF_A_POST = re.compile(r"(.+_UTC)_\d+")  # of instaloader: pictures of one post share a text
_TAG_CHARACTERS = 64
BOXES_NOTE = "texts that hold the boxes of YOLO (`0 0.5 0.5 0.2 0.3`), which are no captions"


class Neighbours:
    """Which texts, sidecars and which JSON file lie beside each picture; `others` belong to none."""

    def __init__(self, listing: Listing, pictures: Iterable[str]) -> None:
        texts = sorted(listing.having(TEXT_SUFFIXES), key=lambda file: suffix_of(file) != ".txt")
        by_json = listing.having(JSON_SUFFIXES)
        every = (*texts, *by_json, *listing.having(SIDECAR_SUFFIXES))
        by_stem = grouped((_picture_of(file), file) for file in every)
        self.texts: dict[str, tuple[str, ...]] = {}
        self.json: dict[str, str] = {}
        self.sidecars: dict[str, tuple[str, ...]] = {}
        owned: set[str] = set()
        for picture in pictures if by_stem else ():
            stem = stem_of(nfc(picture))
            found = [*by_stem.get(stem, ()), *by_stem.get(nfc(picture), ())]
            if not found and (post := _OF_A_POST.fullmatch(stem)):
                found = by_stem.get(post[1], [])
            owned |= self._take(picture, found)
        left = (file for files in by_stem.values() for file in files if file not in owned)
        in_any_case = grouped((nfc(stem_of(file)).casefold(), file) for file in left)
        for picture in pictures if in_any_case else ():
            if picture not in self.texts and picture not in self.json:
                owned |= self._take(picture, in_any_case.get(nfc(stem_of(picture)).casefold(), []))
        apart = TextsApart(file for file in texts if file not in owned)
        alone = _names_of_one(pictures) if apart.files else set()
        for picture in pictures if apart.files else ():
            if picture not in self.texts and (of_text := apart.of(nfc(stem_of(picture)), alone)):
                self.texts[picture] = of_text
                owned.update(of_text)
        apart = TextsApart((file for file in by_json if file not in owned), _JSON_FOLDER)
        for picture in pictures if apart.files else ():
            if picture not in self.json and (of_json := apart.of(nfc(stem_of(picture)))):
                self.json[picture] = of_json[0]
                owned.add(of_json[0])
        kinds = TEXT_SUFFIXES | SIDECAR_SUFFIXES | TABLE_SUFFIXES
        self.others = [file for file in listing.having(kinds) if file not in owned]

    def of(self, picture: str) -> set[str]:
        """All files that belong to a picture."""
        json = self.json.get(picture)
        return {*self.texts.get(picture, ()), *self.sidecars.get(picture, ()), *([json] if json else ())}

    def _take(self, picture: str, found: list[str]) -> set[str]:
        """What was found beside a picture becomes its own."""
        if of_text := tuple(file for file in found if suffix_of(file) in TEXT_SUFFIXES):
            self.texts[picture] = of_text
        if of_program := tuple(file for file in found if suffix_of(file) in SIDECAR_SUFFIXES):
            self.sidecars[picture] = of_program
        if json_file := next((file for file in found if suffix_of(file) in JSON_SUFFIXES), None):
            self.json[picture] = json_file
        return set(found)


def _picture_of(file: str) -> str:
    """The name of the picture that a text or JSON is about, with or without its suffix."""
    stem = nfc(stem_of(file))
    if suffix_of(file) in JSON_SUFFIXES and suffix_of(stem) == ".info":  # of yt-dlp
        return stem_of(stem)
    takeout = _TAKEOUT.fullmatch(stem) if suffix_of(file) in JSON_SUFFIXES else None
    if takeout is None or not "supplemental-metadata".startswith(takeout[2]):
        return stem
    return f"{stem_of(takeout[1])}{takeout[3]}{suffix_of(takeout[1])}" if takeout[3] else takeout[1]


def _names_of_one(pictures: Iterable[str]) -> set[str]:
    """The names, without folder and suffix, that one picture alone has."""
    counts = Counter(nfc(stem_of(picture)).rpartition("/")[2] for picture in pictures)
    return {name for name, count in counts.items() if count == 1}


class TextsApart:
    """Texts in folders of their own, which are called so (`folder`); `files` are those by path, without suffix and
    without that folder.
    """

    def __init__(self, texts: Iterable[str], folder: re.Pattern[str] = _TEXT_FOLDER) -> None:
        self.files: dict[str, list[str]] = defaultdict(list)
        for file in texts:
            *folders, base = nfc(stem_of(file)).split("/")
            for place, name in enumerate(folders):
                if folder.fullmatch(name.lower()):
                    self.files["/".join([*folders[:place], *folders[place + 1 :], base])].append(file)

    def of(self, stem: str, alone: Collection[str] = ()) -> tuple[str, ...]:
        """The texts of a picture, as it stands or without a folder such as `images`; or the only one of its name, where
        that is one of the names that belong to one picture `alone`.
        """
        *folders, base = stem.split("/")
        places = [place for place, name in enumerate(folders) if is_layout(name)]
        without = ("/".join([*folders[:place], *folders[place + 1 :], base]) for place in places)
        found = self.files.get(next((key for key in (stem, *without) if key in self.files), ""), ())
        named = self._by_name.get(base, ()) if not found and base in alone else ()
        return tuple(found or (named if len(named) == 1 else ()))

    @cached_property
    def _by_name(self) -> dict[str, list[str]]:
        return grouped((key.rpartition("/")[2], file) for key, files in self.files.items() for file in files)


class About(NamedTuple):
    """What texts and a row of columns say of one picture.

    `text` is the first text as it stands, "" without one. `captions` are those of the texts, `row_captions` those
    of the row. `notes` say what was odd: a file was read as Windows-1252, or holds boxes.
    """

    text: str
    captions: list[str]
    columns: dict[str, str]
    row_captions: list[str]
    notes: list[str]


def read_beside(root: Path, texts: Iterable[str], json_file: str | None) -> About:
    """ValueError or OSError for a file that cannot be read."""
    row = decode(_content(root / json_file)) if json_file else None
    return about([decode(_content(root / file)) for file in texts], row)


def about(texts: Sequence[Decoded], json_text: Decoded | None) -> About:
    """ValueError for JSON that cannot be read."""
    row = read_json(json_text.text) if json_text else {}
    boxes = [text for text in texts if _holds_boxes(text.text)]
    prompts = (_plain(prompt_of(text.text)) for text in texts if text not in boxes)
    filled = [prompt for prompt in prompts if prompt.strip()]
    notes = [CP1252_NOTE] if any(text.guessed for text in (*texts, json_text) if text) else []
    notes += [BOXES_NOTE] * len(boxes)
    known = ((name, text_of(name, value)) for name, value in row.items() if value is not None)
    columns = {name: text for name, text in known if text is not None}
    captions = ready_captions(row)
    return About(next(iter(filled), ""), _captions_of_texts(filled, captions), columns, captions, notes)


def _plain(text: str) -> str:
    """A text without marks of entities; one that is JSON as the captions in it, or in one line where it has none; tags
    line by line as one caption.
    """
    if "{{" in text:
        return of_wikitext(text) or text
    if text.lstrip()[:1] in ("{", "["):
        with suppress(ValueError):
            return "\n".join(" ".join(caption.split()) for caption in ready_captions(read_json(text)) or [text])
    lines = alternatives(text) if _TAG.search(text) else []
    if len(lines) > 1 and max(map(len, lines)) < _TAG_CHARACTERS and any(map(_TAG.fullmatch, lines)):
        return ", ".join(lines)
    return _ENTITY.sub(r"\1", text) if "[/EN#" in text else text


def _holds_boxes(text: str) -> bool:
    lines = [" ".join(line.split()) for line in text.splitlines() if line.strip()]
    return bool(lines) and all(map(_BOX.fullmatch, lines))


def _content(path: Path) -> bytes:
    """ValueError where there is more than belongs to one picture."""
    if (size := path.stat().st_size) > MAX_TEXT_BYTES:
        raise ValueError(f"its {path.suffix} has {size} bytes, at most {MAX_TEXT_BYTES} are read")
    return path.read_bytes()


def columns_beside(root: Path, files: Iterable[str]) -> list[tuple[str, ...]]:
    """The columns of each of some JSON files beside pictures."""
    rows = []
    for file in files:
        with suppress(OSError, ValueError):
            rows.append(read_json(decode(_content(root / file)).text))
    return [tuple(name for name, value in row.items() if text_of(name, value) is not None) for row in rows]


def _captions_of_texts(texts: list[str], row_captions: list[str]) -> list[str]:
    """Their lines; but a text that the row has as its one caption is that caption, with all its lines."""
    whole = " ".join(row_captions[0].split()) if len(row_captions) == 1 else None
    lines = [[text] if " ".join(text.split()) == whole else alternatives(text) for text in texts]
    return unique([line for found in lines for line in found])
