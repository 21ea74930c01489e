"""What programs that sort pictures write beside them, read as columns: `a.tags`, and the XMP of digiKam, darktable and
Lightroom (`a.xmp`, `a.jpg.xmp`); the class of a picture in `a.cls` too.

    <dc:description>   caption      <dc:title>   title      <dc:subject>   keywords

A caption that stands anywhere else is preferred to these.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from xml.etree import ElementTree

from diffusion_art.sources.paths.listing import suffix_of
from diffusion_art.sources.programs.exports import of_a_camera
from diffusion_art.sources.tables.texts import MAX_TEXT_BYTES, decode
from diffusion_art.sources.tables.xml_shapes import parsed

UNREAD_XMP = "xmp files that cannot be read, passed by"

_DC, _RDF = "{http://purl.org/dc/elements/1.1/}", "{http://www.w3.org/1999/02/22-rdf-syntax-ns#}"
_LANGUAGE = "{http://www.w3.org/XML/1998/namespace}lang"
_COLUMNS = {"description": "caption", "title": "title", "subject": "keywords"}
_HIERARCHY = "{http://ns.adobe.com/lightroom/1.0/}hierarchicalSubject"
_HEADLINE = "{http://ns.adobe.com/photoshop/1.0/}Headline"


def read_sidecars(root: Path, files: Iterable[str]) -> tuple[dict[str, str], list[str]]:
    """(columns, notes) of one picture. OSError for a file that cannot be opened."""
    columns: dict[str, str] = {}
    notes: list[str] = []
    for file in files:
        with (root / file).open("rb") as opened:
            text = decode(opened.read(MAX_TEXT_BYTES)).text
        if suffix_of(file) == ".tags":
            columns["tags"] = ", ".join(line.strip() for line in text.splitlines() if line.strip())
            continue
        if suffix_of(file) == ".cls":
            columns["label"] = text.strip()
            continue
        try:
            columns |= read_xmp(text)
        except ValueError:
            notes.append(UNREAD_XMP)
    return {name: value for name, value in columns.items() if value}, notes


def read_xmp(text: str) -> dict[str, str]:
    """The columns in a packet of XMP. ValueError where it cannot be read, or declares entities of its own."""
    tree = parsed(text)
    columns: dict[str, str] = {}
    for about in tree.iter(f"{_RDF}Description"):
        of_darktable = _words_of_darktable(about)
        headline = about.get(_HEADLINE) or about.findtext(_HEADLINE) or ""
        for name, column in _COLUMNS.items():
            inner = about.find(f"{_DC}{name}")
            found = _texts(inner) if inner is not None else [about.get(f"{_DC}{name}", "")]
            found = [text for text in found if name != "subject" or text not in of_darktable]
            told = ", ".join(found if name == "subject" else found[:1]).strip()
            if told and not of_a_camera(told):
                columns.setdefault(column, told)
        if headline.strip():
            columns.setdefault("title", headline.strip())
    return columns


def _words_of_darktable(about: ElementTree.Element) -> set[str]:
    """What darktable notes of its own among the subjects: `darktable|format|jpg`, `darktable|changed`."""
    tags = [text for part in about.iterfind(_HIERARCHY) for text in _texts(part)]
    own = {word for tag in tags if tag.startswith("darktable|") for word in tag.split("|")}
    return own - {word for tag in tags if not tag.startswith("darktable|") for word in tag.split("|")}


def _texts(element: ElementTree.Element) -> list[str]:
    """The items in an element, that of no one language first; or its own text."""
    items = sorted(element.iter(f"{_RDF}li"), key=lambda item: item.get(_LANGUAGE, "x-default") != "x-default")
    texts = [item.text or "" for item in items] or [element.text or ""]
    return [stripped for text in texts if (stripped := text.strip())]
