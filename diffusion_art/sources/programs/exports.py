"""What Instagram, Facebook, Flickr, Wikimedia and exiftool give to people who take pictures away, as plain rows.

[{"media": [{"uri": "media/posts/a.jpg", "title": "..."}], "title": "..."}]
{"photos": [{"uri": "photos/a.jpg", "description": "..."}]}
"""

from __future__ import annotations

import re
from typing import Any

_DESCRIPTIONS = ("Description", "Caption-Abstract", "ImageDescription")  # of XMP, IPTC, EXIF; with a group or without
_FROM_CAMERAS = ("olympus digital camera", "minolta digital camera", "kodak digital still camera", "sony dsc")
_FROM_CAMERAS += ("exif_jpeg_picture", "dcim", "dav", "samsung", "created with gimp", "default", "screenshot", "ascii")

_ON_A_PAGE = re.compile(r"\{\{\s*(?:Information|Artwork|Painting|Photograph|Art Photo)\b", re.IGNORECASE)
_FIELD = re.compile(
    r"^\s*\|\s*(artist|author|title|date|year|description)\s*=(.*?)(?=^\s*\||^\s*\}\}|\Z)",
    re.MULTILINE | re.DOTALL | re.IGNORECASE,
)
_MARKUP = (
    re.compile(r"\[\[(?:[^]|]*\|)?([^]]*)\]\]"),
    re.compile(r"\{\{(?:Creator:|[\w-]+\|(?:1=)?)([^{}|]*)\}\}"),
    re.compile(r"'''?()"),
)
_COMMONS = {"artist": "Artist", "title": "ObjectName", "date": "DateTimeOriginal", "description": "ImageDescription"}


def posts_in(row: dict[str, Any]) -> list[dict[str, Any]]:
    """A row for each picture of a post; another row as it is. What a post says stands for each of its pictures."""
    media = row.get("media")
    if not isinstance(media, list) or not all(isinstance(item, dict) and "uri" in item for item in media):
        return [_of_picture(row)]
    said = row.get("title") if isinstance(row.get("title"), str) else ""
    return [_of_picture({**item, "title": item.get("title") or said}) for item in media]


def of_exiftool(row: dict[str, Any]) -> dict[str, Any]:
    """The row with the description of the picture as its caption, as where XMP lies beside it; another as it is."""
    if "SourceFile" not in row or row.get("caption"):
        return row
    plain = {name: name.rpartition(":")[2] for name in row}
    row = {name: value for name, value in row.items() if plain[name] not in _DESCRIPTIONS or not _says_nothing(value)}
    said = {plain[name]: value for name, value in row.items() if plain[name] in _DESCRIPTIONS}
    best = next((said[name] for name in _DESCRIPTIONS if name in said), None)
    return {**row, "caption": best} if best else row


def _says_nothing(value: Any) -> bool:
    return not isinstance(value, str) or not value.strip() or of_a_camera(value)


def of_a_camera(text: str) -> bool:
    """Whether a description is what a camera or a program writes into each of its pictures."""
    return text.strip().lower() in _FROM_CAMERAS


def of_flickr(row: dict[str, Any]) -> dict[str, Any]:
    """The row of a photo with its description as the caption; its name is the title."""
    if "photopage" not in row or "name" not in row:
        return row
    return _captioned({**row, "title": row["name"]}, row.get("description"))


def _captioned(row: dict[str, Any], said: Any) -> dict[str, Any]:
    """The row with what someone wrote about its picture, if that is anything."""
    return {**row, "caption": said} if isinstance(said, str) and said.strip() else row


def of_commons(row: dict[str, Any]) -> dict[str, Any]:
    """What Wikimedia's interface says of a file (`imageinfo`), as the columns of a painting."""
    info = row.get("imageinfo")
    known = info[0].get("extmetadata") if isinstance(info, list) and info and isinstance(info[0], dict) else None
    if not isinstance(known, dict):
        return row
    said = {name: known[key].get("value") for name, key in _COMMONS.items() if isinstance(known.get(key), dict)}
    name = str(row.get("title", "")).partition(":")[2]
    names = {"file_name": name, "saved_as": name.replace(" ", "_")}  # by browsers
    return {**row, **names, "title": "", **{name: str(value) for name, value in said.items()}}


def of_wikitext(text: str) -> str:
    """Artist, title and date of a painting on a page of Wikimedia's, or else its description; "" of other text."""
    if not _ON_A_PAGE.search(text):
        return ""
    said = {match[1].lower(): _without_markup(match[2]) for match in _FIELD.finditer(text)}
    painting = (said.get("artist") or said.get("author"), said.get("title"), said.get("date") or said.get("year"))
    return " / ".join(filter(None, painting)) if said.get("title") else said.get("description", "")


def _without_markup(text: str) -> str:
    for mark in _MARKUP:
        text = mark.sub(r"\1", text)
    return " ".join(text.split())


def of_diffusiondb(row: dict[str, Any]) -> dict[str, Any]:
    """Its prompts are called `p`, beside seed, scale, steps and sampler."""
    return {**row, "prompt": row["p"]} if {"p", "se", "st", "sa"} <= row.keys() else row


def of_eagle(row: dict[str, Any]) -> dict[str, Any]:
    """What someone wrote about a picture in a library of Eagle is its caption."""
    return _captioned(row, row.get("annotation")) if {"isDeleted", "ext"} <= row.keys() else row


def _of_picture(row: dict[str, Any]) -> dict[str, Any]:
    if not {"uri", "creation_timestamp"} <= row.keys():
        return row
    said = next((text for name in ("description", "title") if isinstance(text := row.get(name), str) and text), "")
    return {"file_name": row["uri"], "caption": _repaired(said)}


def _repaired(text: str) -> str:
    """Text whose bytes in UTF-8 were written as letters: `Ã©` is é."""
    try:
        return text.encode("latin-1").decode()
    except UnicodeError:
        return text


def of_sparql(row: dict[str, Any]) -> dict[str, Any]:
    """The values in an answer to a question in SPARQL, as Wikidata gives it."""
    cells = all(isinstance(cell, dict) and isinstance(cell.get("value"), str) for cell in row.values())
    return {name: cell["value"] for name, cell in row.items()} if row and cells else row


# each changes rows of its own kind alone
OF_EXPORTS = (of_exiftool, of_flickr, of_commons, of_eagle, of_diffusiondb, of_sparql)
