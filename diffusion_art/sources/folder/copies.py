"""Smaller copies of pictures that programs and data sets keep beside them, and masks of these:

images/a.jpg and thumbs/a.jpg      a.png and a_thumbnail.png      a.jpg and a-300x200.jpg      images/a.jpg, masks/a.png
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from itertools import takewhile

from diffusion_art.sources.folder.beside import Neighbours
from diffusion_art.sources.paths.listing import Listing, grouped, stem_of
from diffusion_art.sources.paths.names import is_layout
from diffusion_art.sources.paths.splits import split_of_folder

COPIES = "smaller copies or masks of other pictures (thumbs/, a_thumb.jpg, masks/)"

_MASKS = r"masks?|segmentations?|seg|mattes?|trimaps?|depth|canny|conditioning(?:_images?)?"
_FOLDER = re.compile(r"(?:.*[_ -])?(?:resized|thumb(?:nail)?s?)", re.IGNORECASE)
_OF_MASKS = re.compile(rf"(?:.*[_ -])?(?:{_MASKS})", re.IGNORECASE)
_COPY = re.compile(r"(.+)[_.-](?:thumb(?:nail)?|\d{2,4}x\d{2,4})", re.IGNORECASE)
_MASK = re.compile(r"(.+)[_.-](?:mask|seg)", re.IGNORECASE)
_NAMESAKES = 100  # pictures of one name, of which none is looked for
_SMALLER = 0.9  # of the copies: those with no more bytes than their pictures
_MASKED = 0.5  # of the pictures: those with a mask beside them, where `death_mask.jpg` is none


def small_copies(listing: Listing) -> dict[str, str]:
    """{copy: the picture that it is one of}. Folders of such are copies as a whole or not at all. What has a text of
    its own is no copy.
    """
    files = listing.pictures()
    masked = {_bare(_without(file, _OF_MASKS)) for file in files if _is_in(file, _OF_MASKS)}
    plain = [file for file in files if masked and (_bare(stem_of(file)) in masked or _may_have_masks(file))]
    thumbs, sizes = _smaller(_apart(files, _FOLDER), listing), _smaller(_beside(files, _COPY), listing)
    apart, masks = _apart(plain, _OF_MASKS), _beside(files, _MASK)
    found = {**thumbs, **sizes, **apart, **masks}
    if len(masks) < _MASKED * (len(files) - len(found)):
        masks = {}
    told = _with_texts(listing, found)
    whole = [some for some in (thumbs, apart) if not told & some.keys()]
    return {copy: file for some in (*whole, sizes, masks) for copy, file in some.items() if copy not in told}


def _apart(files: Sequence[str], folder: re.Pattern[str]) -> dict[str, str]:
    """All pictures in folders called so with the one of that name elsewhere that lies nearest; {} where one has none
    or several.
    """
    inside = [file for file in files if _is_in(file, folder)]
    others = [file for file in files if not _is_in(file, folder)] if inside else []
    stems = {stem_of(other): other for other in others}
    alike = grouped(pair for other in others for pair in ((_name(other, 1), other), (_name(other, 2), other)))
    found = {}
    for file in inside:
        near = alike.get(_name(file, 2)) or alike.get(_name(file, 1), [])
        exact = stems.get(_without(file, folder))
        shared = [_shared(file, other) for other in near] if exact is None and len(near) < _NAMESAKES else []
        if exact is None and shared.count(max(shared, default=0)) != 1:
            return {}
        found[file] = exact or near[shared.index(max(shared))]
    return found


def _beside(files: Sequence[str], called: re.Pattern[str]) -> dict[str, str]:
    """Pictures called so beside those whose names begin theirs."""
    named = {file: match[1] for file in files if (match := called.fullmatch(stem_of(file)))}
    stems = {stem_of(file): file for file in files} if named else {}
    return {file: stems[stem] for file, stem in named.items() if stem in stems}


def _smaller(copies: Mapping[str, str], listing: Listing) -> Mapping[str, str]:
    """The copies where nearly all have no more bytes than their pictures; else {}."""
    sizes = {file: int(listing.files[file].split()[0]) for pair in copies.items() for file in pair}
    small = sum(sizes[copy] <= sizes[file] for copy, file in copies.items())
    return copies if small >= _SMALLER * len(copies) else {}


def _with_texts(listing: Listing, copies: Mapping[str, str]) -> set[str]:
    """Those with a text, JSON or sidecar that is not that of the picture."""
    if not copies:
        return set()
    own, others = Neighbours(listing, copies), Neighbours(listing, dict.fromkeys(copies.values()))
    return {copy for copy, file in copies.items() if own.of(copy) - others.of(file)}


def _is_in(file: str, folder: re.Pattern[str]) -> bool:
    return any(map(folder.fullmatch, file.split("/")[:-1]))


def _without(file: str, folder: re.Pattern[str]) -> str:
    """The path and name without folders called so: `masks/Cubism/a.png` is about `Cubism/a`."""
    *folders, name = stem_of(file).split("/")
    return "/".join([*(one for one in folders if not folder.fullmatch(one)), name])


def _bare(path: str) -> str:
    """A path without folders that say nothing, such as `images`."""
    *folders, name = path.split("/")
    return "/".join([*(folder for folder in folders if not is_layout(folder)), name])


def _may_have_masks(file: str) -> bool:
    """Whether a picture is a mask, or lies in no class of pictures: `mask/1.jpg` beside `face/1.jpg` is a class too."""
    if _is_in(file, _OF_MASKS):
        return True
    parent = file.rpartition("/")[0].rpartition("/")[2]
    return not parent or is_layout(parent) or split_of_folder(parent) is not None


def _name(file: str, parts: int) -> str:
    """The last so many parts of a path, without the suffix."""
    return "/".join(stem_of(file).split("/")[-parts:]).casefold() + "/" * parts


def _shared(file: str, other: str) -> int:
    """How many folders two paths have in common, at their beginning and at their end."""
    one, two = file.split("/")[:-1], other.split("/")[:-1]
    return sum(
        len(list(takewhile(lambda pair: pair[0] == pair[1], zip(*ways))))
        for ways in ((one, two), (one[::-1], two[::-1]))
    )
