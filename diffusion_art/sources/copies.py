"""Smaller copies of pictures that programs and data sets keep beside them, and masks of these:

images/a.jpg and thumbs/a.jpg      a.png and a_thumbnail.png      a.jpg and a-300x200.jpg      images/a.jpg, masks/a.png
"""

from __future__ import annotations

import re

from diffusion_art.sources.listing import Listing
from diffusion_art.sources.suffixes import JSON_SUFFIXES, TEXT_SUFFIXES, stem_of

COPIES = "smaller copies or masks of other pictures (thumbs/, a_thumb.jpg, masks/), left out"

_MASKS = r"masks?|segmentations?|seg|mattes?|trimaps?|depth|canny|conditioning(?:_images?)?"
_FOLDER = re.compile(rf"(?:.*[_ -])?(?:resized|thumb(?:nail)?s?|{_MASKS})", re.IGNORECASE)
_COPY = re.compile(r"(.+)[_.-](?:thumb(?:nail)?|mask|seg|\d{2,4}x\d{2,4})", re.IGNORECASE)


def small_copies(listing: Listing) -> set[str]:
    """The pictures beside which the same one is there. Folders of such are copies as a whole or not at all. What has a
    text of its own is no copy.
    """
    files = listing.pictures()
    inside = {file for file in files if any(map(_FOLDER.fullmatch, file.split("/")[:-1]))}
    named = {file: match[1] for file in files if (match := _COPY.fullmatch(stem_of(file)))}
    if not inside and not named:
        return set()
    others = {_name(file) for file in files if file not in inside}
    texts = {stem_of(file) for file in listing.having(TEXT_SUFFIXES | JSON_SUFFIXES)}
    copies = inside if all(_name(file) in others and stem_of(file) not in texts for file in inside) else set()
    stems = set(map(stem_of, files))
    return copies | {file for file, stem in named.items() if stem in stems and stem_of(file) not in texts}


def _name(file: str) -> str:
    return stem_of(file[file.rfind("/") + 1 :]).casefold()
