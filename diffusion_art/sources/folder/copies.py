"""Smaller copies of pictures that programs and data sets keep beside them, and masks of these:

images/a.jpg and thumbs/a.jpg      a.png and a_thumbnail.png      a.jpg and a-300x200.jpg      images/a.jpg, masks/a.png
"""

from __future__ import annotations

import re
from collections.abc import Callable, Container, Sequence

from diffusion_art.sources.paths.listing import Listing
from diffusion_art.sources.paths.names import is_layout
from diffusion_art.sources.paths.splits import split_of_folder
from diffusion_art.sources.paths.suffixes import JSON_SUFFIXES, TEXT_SUFFIXES, stem_of

COPIES = "smaller copies or masks of other pictures (thumbs/, a_thumb.jpg, masks/), left out"

_MASKS = r"masks?|segmentations?|seg|mattes?|trimaps?|depth|canny|conditioning(?:_images?)?"
_FOLDER = re.compile(r"(?:.*[_ -])?(?:resized|thumb(?:nail)?s?)", re.IGNORECASE)
_OF_MASKS = re.compile(rf"(?:.*[_ -])?(?:{_MASKS})", re.IGNORECASE)
_COPY = re.compile(r"(.+)[_.-](?:thumb(?:nail)?|mask|seg|\d{2,4}x\d{2,4})", re.IGNORECASE)


def small_copies(listing: Listing) -> set[str]:
    """The pictures beside which the same one is there. Folders of such are copies as a whole or not at all. What has a
    text of its own is no copy.
    """
    files = listing.pictures()
    texts = {stem_of(file) for file in listing.having(TEXT_SUFFIXES | JSON_SUFFIXES)}
    named = {file: match[1] for file in files if (match := _COPY.fullmatch(stem_of(file)))}
    stems = set(map(stem_of, files)) if named else set()
    beside = {file for file, stem in named.items() if stem in stems and stem_of(file) not in texts}
    return beside | _apart(files, _FOLDER, texts, lambda _: True) | _apart(files, _OF_MASKS, texts, _says_nothing)


def _apart(
    files: Sequence[str], folder: re.Pattern[str], texts: Container[str], may_hold: Callable[[str], bool]
) -> set[str]:
    """All pictures in folders called so, where each is also in another folder, which `may_hold` the picture itself."""
    inside = {file for file in files if any(map(folder.fullmatch, file.split("/")[:-1]))}
    others = {_name(file) for file in files if file not in inside and may_hold(file)} if inside else set()
    return inside if all(_name(file) in others and stem_of(file) not in texts for file in inside) else set()


def _says_nothing(file: str) -> bool:
    """Whether a picture lies in no class of pictures: `mask/1.jpg` beside `face/1.jpg` is a class too."""
    parent = file.rpartition("/")[0].rpartition("/")[2]
    return not parent or is_layout(parent) or split_of_folder(parent) is not None


def _name(file: str) -> str:
    return stem_of(file[file.rfind("/") + 1 :]).casefold()
