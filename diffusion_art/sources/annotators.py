"""What annotation tools write in JSON, as plain rows: Label Studio, VGG's Image Annotator (VIA) and LabelMe."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from diffusion_art.captions import unique


def of_label_studio(row: dict[str, Any]) -> dict[str, Any]:
    """A task with its data, and what was typed (`textarea`) or chosen; another row as it is."""
    data, made = row.get("data"), row.get("annotations") or row.get("completions")
    if not isinstance(data, dict) or not isinstance(made, list):
        return row
    found: dict[str, list[str]] = {"text": [], "choices": []}
    for annotation in made:
        results = annotation.get("result") if isinstance(annotation, dict) else None
        for result in results if isinstance(results, list) else ():
            value = result.get("value") if isinstance(result, dict) else None
            if isinstance(value, dict):
                for kind, texts in found.items():
                    texts += [text for text in _listed(value.get(kind)) if isinstance(text, str)]
    captions, choices = unique(found["text"]), unique(found["choices"])
    return {**data, **({"caption": captions} if captions else {}), **({"labels": choices} if choices else {})}


def rows_of_via(content: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """A picture's file and attributes, and the names of its regions' classes; nothing of another file."""
    pictures = content.get("_via_img_metadata", content)
    if not isinstance(pictures, dict):
        return
    for about in pictures.values():
        if not isinstance(about, dict) or not isinstance(about.get("filename"), str) or "regions" not in about:
            return
        attributes = about.get("file_attributes")
        yield {"file_name": about["filename"], **(attributes if isinstance(attributes, dict) else {})}


def of_labelme(row: dict[str, Any]) -> dict[str, Any]:
    """The names of the shapes in a picture, without their outlines and the picture itself; another row as it is."""
    shapes = row.get("shapes")
    if not isinstance(shapes, list) or "imagePath" not in row:
        return row
    labels = unique([str(shape.get("label", "")) for shape in shapes if isinstance(shape, dict)])
    flags = row.get("flags")
    set_ones = [name for name, value in flags.items() if value is True] if isinstance(flags, dict) else []
    return {"labels": [*set_ones, *labels]}


def _listed(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]
