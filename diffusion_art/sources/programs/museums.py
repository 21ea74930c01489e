"""Objects as the interfaces of museums give them, as rows with the columns of a painting: Harvard's people with roles,
the Smithsonian's records, Linked Art (Getty, Yale), schema.org, Denmark's SMK; and manifests of IIIF, versions 2 and 3,
as one row a picture: what its address calls it, its label, and what the manifest says of the object.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

from diffusion_art.captions.columns import unique
from diffusion_art.sources.programs import as_list, record, records

_MAKER = re.compile(r"artist|painter|maker|creator|photographer|printmaker|designer", re.IGNORECASE)
# .../iiif/IDENTIFIER/full/max/0/default.jpg
_IDENTIFIER = re.compile(r".*/([^/]+)/(?:full|square|[\d,]+|pct:[\d.,]+)/[^/]+/[^/]+/[^/]+")


def of_museum(row: dict[str, Any]) -> dict[str, Any]:
    """The row with its artist, title and date; another row as it is."""
    content = row.get("content")
    if isinstance(content, dict) and isinstance(content.get("descriptiveNonRepeating"), dict):
        return _of_smithsonian(content)
    if row.get("type") == "HumanMadeObject" and isinstance(row.get("_label"), str):
        return _of_linked_art(row)
    if "@type" in row and isinstance(row.get("name"), str):  # schema.org
        return {"title": row["name"], **row}
    if made := [item for item in records(row.get("production")) if "creator" in item]:  # Denmark's SMK
        return {"artist": [item["creator"] for item in made], **row}
    people = [person for person in records(row.get("people")) if "role" in person]
    if people and not row.get("artist"):
        makers = [person for person in people if _MAKER.search(str(person["role"]))] or people
        return {**row, "artist": [person.get("name") or person.get("displayname") for person in makers]}
    return row


def _of_smithsonian(content: dict[str, Any]) -> dict[str, Any]:
    about, free = content["descriptiveNonRepeating"], record(content.get("freetext"))
    title, media = about.get("title"), record(about.get("online_media"))
    pictures = [str(item.get("idsId", "")) for item in records(media.get("media"))]
    names = [item for item in records(free.get("name")) if _MAKER.search(str(item.get("label")))]
    return {
        "image": next(iter(pictures), ""),
        "record": str(about.get("record_ID", "")),
        "artist": [item.get("content") for item in names],
        "title": title.get("content", "") if isinstance(title, dict) else str(title or ""),
        "date": next((str(item.get("content", "")) for item in records(free.get("date"))), ""),
    }


def _of_linked_art(row: dict[str, Any]) -> dict[str, Any]:
    made = record(row.get("produced_by"))
    return {
        **row,
        "artist": [str(person.get("_label", "")) for person in records(made.get("carried_out_by"))],
        "title": row["_label"],
        "date": str(record(made.get("timespan")).get("_label", "")),
    }


# ---------------------------------------------------------------------- manifests of IIIF


def is_manifest(content: Any) -> bool:
    return record(content).get("type", record(content).get("@type")) in ("Manifest", "sc:Manifest")


def rows_of_manifest(content: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """`image` is what the address of a picture calls it, `label` its own label. Of one picture the title is that of the
    object, of several both.
    """
    parts = _records_in(content.get("sequences"))
    found = [canvas for part in parts for canvas in as_list(part.get("canvases"))] or content.get("items")
    canvases, whole, about = _records_in(found), _text(content.get("label")), _told(content)
    for canvas in canvases:
        label = _text(canvas.get("label"))
        title = whole if len(canvases) == 1 and whole else ", ".join(unique([whole, label]))
        more = {name: text for name, text in {**about, **_told(canvas)}.items() if name and name.lower() != "title"}
        addresses = list(filter(None, _addresses(canvas)))
        image = next((match[1] for address in addresses if (match := _IDENTIFIER.fullmatch(address))), "")
        yield {**more, "title": title, "label": label, "image": image or next(iter(addresses), "")}


def _told(item: Mapping[str, Any]) -> dict[str, str]:
    """What a manifest, or a picture in it, says by name."""
    return {_text(pair.get("label")): _text(pair.get("value")) for pair in _records_in(item.get("metadata"))}


def _addresses(canvas: Mapping[str, Any]) -> Iterator[str]:
    """Of the pictures that are painted on a canvas."""
    for page in _records_in(canvas.get("items")):
        for annotation in _records_in(page.get("items")):
            yield from (str(body.get("id", "")) for body in _records_in(annotation.get("body")))
    for image in _records_in(canvas.get("images")):
        yield from (str(resource.get("@id", "")) for resource in records([image.get("resource")]))


def _text(value: Any) -> str:
    """Of a text, a list, or a map by language: English first, then that of none."""
    if isinstance(value, dict):
        known = (value[name] for name in ("en", "none", "@value") if value.get(name))
        value = next(known, next(iter(value.values()), ""))
    texts = (item.get("@value") if isinstance(item, dict) else item for item in as_list(value))
    return ", ".join(unique([str(text) for text in texts if isinstance(text, (str, int))]))


def _records_in(value: Any) -> list[dict[str, Any]]:
    """Also one alone."""
    return records(as_list(value))
