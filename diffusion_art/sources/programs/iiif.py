"""Manifests of IIIF, versions 2 and 3, as one row a picture: what its address calls it, its label, and what the
manifest says of the object (artist, date, ...).
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

from diffusion_art.captions.values import unique

# .../iiif/IDENTIFIER/full/max/0/default.jpg
_IDENTIFIER = re.compile(r".*/([^/]+)/(?:full|square|[\d,]+|pct:[\d.,]+)/[^/]+/[^/]+/[^/]+")


def is_manifest(content: Any) -> bool:
    if not isinstance(content, dict):
        return False
    return content.get("type", content.get("@type")) in ("Manifest", "sc:Manifest")


def rows_of_manifest(content: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """`image` is what the address of a picture calls it, `label` its own label. Of one picture the title is that of the
    object, of several both.
    """
    sequences = [item for item in _listed(content.get("sequences")) if isinstance(item, dict)]
    found = [canvas for part in sequences for canvas in _listed(part.get("canvases"))] or _listed(content.get("items"))
    canvases = [canvas for canvas in found if isinstance(canvas, dict)]
    about = {_text(pair.get("label")): _text(pair.get("value")) for pair in _pairs(content)}
    whole = _text(content.get("label"))
    for canvas in canvases:
        label = _text(canvas.get("label"))
        title = whole if len(canvases) == 1 and whole else ", ".join(unique([whole, label]))
        own = {_text(pair.get("label")): _text(pair.get("value")) for pair in _pairs(canvas)}
        more = {name: text for name, text in {**about, **own}.items() if name and name.lower() != "title"}
        addresses = [address for address in _addresses(canvas) if address]
        image = next((match[1] for address in addresses if (match := _IDENTIFIER.fullmatch(address))), "")
        yield {**more, "title": title, "label": label, "image": image or next(iter(addresses), "")}


def _pairs(item: Mapping[str, Any]) -> list[dict[str, Any]]:
    return [pair for pair in _listed(item.get("metadata")) if isinstance(pair, dict)]


def _addresses(canvas: Mapping[str, Any]) -> Iterator[str]:
    """Of the pictures that are painted on a canvas."""
    for page in _listed(canvas.get("items")):
        for annotation in _listed(page.get("items") if isinstance(page, dict) else None):
            for body in _listed(annotation.get("body") if isinstance(annotation, dict) else None):
                yield str(body.get("id", "")) if isinstance(body, dict) else ""
    for image in _listed(canvas.get("images")):
        resource = image.get("resource") if isinstance(image, dict) else None
        yield str(resource.get("@id", "")) if isinstance(resource, dict) else ""


def _text(value: Any) -> str:
    """Of a text, a list, or a map by language: English first, then that of none."""
    if isinstance(value, dict):
        known = (value[name] for name in ("en", "none", "@value") if value.get(name))
        value = next(known, next(iter(value.values()), ""))
    texts = (item.get("@value") if isinstance(item, dict) else item for item in _listed(value))
    return ", ".join(unique([str(text) for text in texts if isinstance(text, (str, int))]))


def _listed(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [] if value is None else [value]
