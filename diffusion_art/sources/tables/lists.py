"""Lists in plain text, a picture a line: those of a split, CelebA's partition, pairs of a picture and a caption, and
two lists that go together line by line.
"""

from __future__ import annotations

import posixpath
from collections.abc import Sequence

from diffusion_art.sources.paths.listing import PICTURE_SUFFIXES, suffix_of
from diffusion_art.sources.paths.splits import numbered_splits, split_of_file
from diffusion_art.sources.tables.metadata import NO_PICTURE, OF_CAPTIONS, Metadata
from diffusion_art.sources.tables.table import first_lines
from diffusion_art.sources.tables.texts import Described, read_text


def read_list(metadata: Metadata, file: str) -> bool:
    """Whether `file` is a list of pictures; what it says of them goes into `metadata`."""
    return any(read(metadata, file) for read in (_read_partition, _read_names, _read_pairs))


def _read_partition(metadata: Metadata, file: str) -> bool:
    """CelebA's list of splits by their numbers: `000001.jpg 0`, or CUB's, of numbers in `images.txt`: `1 0`."""
    base, folder = posixpath.basename(file), posixpath.dirname(file)
    if "partition" not in base and "split" not in base:
        return False
    lines = [line.split() for line in _lines(metadata, file)]
    column = "is_train" if "train_test" in base else "partition"
    rows = [{"file_name": line[0], column: line[-1]} for line in lines if len(line) == 2]
    numbers, numbered = numbered_splits(rows), _numbered(metadata, folder)
    named = ((numbered.get(name := row["file_name"]) or metadata.names.find(name, folder), row) for row in rows)
    found = [(picture, row) for picture, row in named if picture]
    if not numbers.note or numbers.unclear or 2 * len(found) <= len(lines):
        return False
    for picture, row in found:
        metadata.add_numbered(metadata.described.setdefault(picture, Described()), numbers, row)
    return True


def _numbered(metadata: Metadata, folder: str) -> dict[str, str]:
    """{number: picture} as `images.txt` beside a list has them."""
    file = posixpath.join(folder, "images.txt")
    lines = [line.split(maxsplit=1) for line in _lines(metadata, file)] if (metadata.root / file).is_file() else []
    named = ((line[0], metadata.names.find(line[1], folder)) for line in lines if len(line) == 2 and line[0].isdigit())
    return {number: picture for number, picture in named if picture}


def _read_names(metadata: Metadata, file: str) -> bool:
    """A list of the pictures of a split, as `train.txt`: one a line, whatever follows it."""
    split, folder = split_of_file(file), posixpath.dirname(file)
    lines = [] if split is None else read_text(metadata.root / file).text.splitlines()
    named = [line for line in map(str.strip, lines) if line]
    found = {metadata.names.find(line, folder) or metadata.names.find(line.split()[0], folder) for line in named}
    found.discard(None)
    if split is None or 2 * len(found) <= len(named):
        return False
    metadata.tell(((str(picture), {}) for picture in found), split_of_table=split)
    return True


def _read_pairs(metadata: Metadata, file: str) -> bool:
    """A list of pictures, a caption behind each: `a.jpg a red house`, or `a.jpg: a house`."""
    folder, path, finder = posixpath.dirname(file), metadata.root / file, metadata.finder(file)
    if not any(finder(name) for name, _ in map(_pair, first_lines(path))):
        return False
    lines = [_pair(line) for line in read_text(path).text.splitlines() if line.strip()]
    known = [(name, text) for name, text in lines if finder(name) and _is_caption(text)]
    if 2 * len(known) <= len(lines):
        return False
    metadata.left_out[NO_PICTURE] += len(lines) - len(known)
    pairs = ((str(metadata.names.find(name, folder)), {"caption": text}) for name, text in known)
    metadata.tell(pairs, split_of_table=split_of_file(file))
    return True


def read_side_by_side(metadata: Metadata, files: Sequence[str]) -> list[str]:
    """Those of some texts in one folder that are a list of pictures and one of their captions, line by line
    (`images.txt` and `prompts.txt`).
    """
    captions = [file for file in files if OF_CAPTIONS.fullmatch(posixpath.basename(file).rpartition(".")[0].lower())]
    for file in captions:
        texts = _lines(metadata, file)
        for other in (other for other in files if other not in captions):
            names = [metadata.names.find(line, posixpath.dirname(other)) for line in _lines(metadata, other)]
            if texts and len(texts) == len(names) and all(names):
                metadata.tell((str(name), {"caption": text}) for name, text in zip(names, texts))
                return [file, other]
    return []


def _lines(metadata: Metadata, file: str) -> list[str]:
    return [line.strip() for line in read_text(metadata.root / file).text.splitlines() if line.strip()]


def _pair(line: str) -> tuple[str, str]:
    """The first word of a line, and what is behind it."""
    name, _, text = line.strip().partition(" ")
    return name.rstrip(":"), text.strip()


def _is_caption(text: str) -> bool:
    """Whether it has letters, and is no second file."""
    return any(map(str.isalpha, text)) and suffix_of(text) not in PICTURE_SUFFIXES
