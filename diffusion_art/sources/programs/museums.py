"""Objects as the interfaces of museums give them, as rows with the columns of a painting: Harvard's people with roles,
the Smithsonian's records, Linked Art (Getty, Yale), schema.org, Denmark's SMK.
"""

from __future__ import annotations

import re
from typing import Any

_MAKER = re.compile(r"artist|painter|maker|creator|photographer|printmaker|designer", re.IGNORECASE)


def of_museum(row: dict[str, Any]) -> dict[str, Any]:
    """The row with its artist, title and date; another row as it is."""
    content = row.get("content")
    if isinstance(content, dict) and isinstance(content.get("descriptiveNonRepeating"), dict):
        return _of_smithsonian(content)
    if row.get("type") == "HumanMadeObject" and isinstance(row.get("_label"), str):
        return _of_linked_art(row)
    if "@type" in row and isinstance(row.get("name"), str):  # schema.org
        return {"title": row["name"], **row}
    if made := [item for item in _records(row.get("production")) if "creator" in item]:  # Denmark's SMK
        return {"artist": [item["creator"] for item in made], **row}
    people = [person for person in _records(row.get("people")) if "role" in person]
    if people and not row.get("artist"):
        makers = [person for person in people if _MAKER.search(str(person["role"]))] or people
        return {**row, "artist": [person.get("name") or person.get("displayname") for person in makers]}
    return row


def _of_smithsonian(content: dict[str, Any]) -> dict[str, Any]:
    about, free = content["descriptiveNonRepeating"], content.get("freetext")
    title, media = about.get("title"), about.get("online_media")
    pictures = [
        str(item.get("idsId", "")) for item in _records(media.get("media") if isinstance(media, dict) else None)
    ]
    free = free if isinstance(free, dict) else {}
    names = [item for item in _records(free.get("name")) if _MAKER.search(str(item.get("label")))]
    return {
        "image": next(iter(pictures), ""),
        "record": str(about.get("record_ID", "")),
        "artist": [item.get("content") for item in names],
        "title": title.get("content", "") if isinstance(title, dict) else str(title or ""),
        "date": next((str(item.get("content", "")) for item in _records(free.get("date"))), ""),
    }


def _of_linked_art(row: dict[str, Any]) -> dict[str, Any]:
    made = row.get("produced_by")
    made = made if isinstance(made, dict) else {}
    span = made.get("timespan")
    return {
        **row,
        "artist": [str(person.get("_label", "")) for person in _records(made.get("carried_out_by"))],
        "title": row["_label"],
        "date": str(span.get("_label", "")) if isinstance(span, dict) else "",
    }


def _records(value: Any) -> list[dict[str, Any]]:
    return [item for item in value if isinstance(item, dict)] if isinstance(value, list) else []
