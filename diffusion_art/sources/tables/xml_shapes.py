"""XML that describes pictures, as one row a picture.

<annotations><image name="a.jpg"><tag label="caption"><attribute name="text">...     CVAT
<annotation><filename>a.jpg</filename><object><name>boat</name>...                   Pascal VOC
<record>...<dc:title>...<dc:creator>...                                              Dublin Core, as museums give it
<mods:titleInfo>... <lido:titleSet>... <metadata><title>...                          MODS, LIDO, the Internet Archive
"""

from __future__ import annotations

from typing import Any
from xml.etree import ElementTree

from diffusion_art.captions.columns import unique
from diffusion_art.sources.paths.listing import PICTURE_SUFFIXES, suffix_of

_DC = "{http://purl.org/dc/elements/1.1/}"
_RECORDS = ("lido", "mods", "metadata")  # elements that are about one object, where Dublin Core names none
# Where the columns of a painting stand in such an element, by the names of elements without their name spaces.
_PLACES = {
    "artist": ("name/namePart", "eventActor//nameActorSet/appellationValue", "displayActorInRole", "creator"),
    "title": ("titleInfo/title", "titleSet/appellationValue", "title"),
    "date": ("originInfo/dateCreated", "originInfo/dateIssued", "eventDate/displayDate", "date"),
    "description": ("abstract", "descriptiveNoteValue", "description"),
    "image": ("linkResource",),
    "identifier": ("lidoRecID", "identifier"),
    "keywords": ("subject",),
}


def parsed(text: str) -> ElementTree.Element:
    """ValueError where it cannot be read, or declares entities of its own."""
    if "<!DOCTYPE" in text or "<!ENTITY" in text:  # what could grow without end, or name other files
        raise ValueError("XML with a document type is not read")
    try:
        return ElementTree.fromstring(text.strip("\0 \r\n\t\ufeff"))
    except (ElementTree.ParseError, ValueError) as error:
        raise ValueError(f"XML cannot be read ({error})") from None


def rows_of_xml(text: str) -> list[dict[str, Any]]:
    """The rows; none where it describes no pictures. ValueError as from `parsed`."""
    tree = parsed(_without_encoding(text))
    if tree.tag == "annotations":
        return list(map(_of_cvat, tree.iter("image")))
    if tree.tag == "annotation":
        names = [_text(item) for item in tree.iterfind("object/name")]
        return [{"file_name": _text(tree.find("filename")), "labels": unique(names)}]
    found = [element for element in tree.iter() if element.find(f"{_DC}title") is not None]
    for element in tree.iter():
        element.tag = str(element.tag).rpartition("}")[2]  # names alone tell enough
    records = found or next((some for name in _RECORDS if (some := list(tree.iter(name)))), [])
    rows = [row for record in records if "title" in (row := _of_record(record))]
    links = [text for place in tree.iter("FLocat") for name, text in place.items() if name.endswith("href")]
    return [{**row, "image": links[0]} for row in rows] if links and len(rows) == 1 else rows


def _of_cvat(image: ElementTree.Element) -> dict[str, Any]:
    """What was typed as text is the caption, in a tag of that name or in any other; labels are the names of shapes."""
    attributes = [item for tag in image.iterfind("tag") for item in tag.iterfind("attribute")]
    typed = [_text(item) for item in attributes if " " in _text(item)] or [_text(item) for item in attributes]
    captions = [text for text in typed if text.lower() not in ("true", "false")]
    labels = [str(item.get("label", "")) for item in image if item.get("label") != "caption"]
    return {
        "file_name": image.get("name", ""),
        **({"caption": unique(captions)} if captions else {}),
        **({"labels": unique(labels)} if any(labels) else {}),
    }


def _of_record(record: ElementTree.Element) -> dict[str, Any]:
    """What one element tells of a painting."""
    row: dict[str, Any] = {}
    for column, places in _PLACES.items():
        found = (unique([_text(item) for item in record.iterfind(f".//{place}")]) for place in places)
        if texts := next((some for some in found if some), []):
            row[column] = texts if column == "keywords" else texts[0]
    links = [_text(item) for item in record.iterfind("identifier")]
    named = next((link for link in links if suffix_of(link) in PICTURE_SUFFIXES), None)
    return {**row, "image": named} if named else row


def _text(element: ElementTree.Element | None) -> str:
    return (element.text or "").strip() if element is not None else ""


def _without_encoding(text: str) -> str:
    """Text is decoded already, and what its first line says of that no longer holds."""
    return text.partition("?>")[2] if text.lstrip("\ufeff \r\n\t").startswith("<?xml") else text
