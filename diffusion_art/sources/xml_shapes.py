"""XML that describes pictures, as one row a picture.

<annotations><image name="a.jpg"><tag label="caption"><attribute name="text">...     CVAT
<annotation><filename>a.jpg</filename><object><name>boat</name>...                   Pascal VOC
<record>...<dc:title>...<dc:creator>...                                              Dublin Core, as museums give it
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any
from xml.etree import ElementTree

from diffusion_art.captions.values import unique

_DC = "{http://purl.org/dc/elements/1.1/}"
_COLUMNS = {"creator": "artist", "title": "title", "date": "date", "description": "description", "subject": "keywords"}


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
    row = dict(_of_dublin_core(tree))
    return [row] if "title" in row else []


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


def _of_dublin_core(tree: ElementTree.Element) -> Iterator[tuple[str, Any]]:
    identifiers = [_text(item) for item in tree.iter(f"{_DC}identifier")]
    yield "identifier", next(iter(identifiers), "")
    for name, column in _COLUMNS.items():
        if texts := unique([_text(item) for item in tree.iter(f"{_DC}{name}")]):
            yield column, texts if name == "subject" else texts[0]


def _text(element: ElementTree.Element | None) -> str:
    return (element.text or "").strip() if element is not None else ""


def _without_encoding(text: str) -> str:
    """Text is decoded already, and what its first line says of that no longer holds."""
    return text.partition("?>")[2] if text.lstrip("\ufeff \r\n\t").startswith("<?xml") else text
