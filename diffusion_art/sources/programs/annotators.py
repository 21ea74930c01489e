"""What annotation tools write in JSON and csv, as plain rows: Label Studio, VGG's Image Annotator (VIA), LabelMe,
FiftyOne and Roboflow.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from diffusion_art.captions.columns import caption_columns, unique
from diffusion_art.sources.paths.splits import split_column
from diffusion_art.sources.programs import as_list, record, records

_FIRST = 200
_MARKS = {"0", "1", "-1"}
_FLAG = re.compile(r"(?:is|has|in)(?![a-z])", re.IGNORECASE)  # `is_public_domain`, `hasImage`


def of_label_studio(row: dict[str, Any]) -> dict[str, Any]:
    """A task with its data, and what was typed (`textarea`) or chosen; another row as it is."""
    data, made = row.get("data"), row.get("annotations") or row.get("completions")
    if not isinstance(data, dict) or not isinstance(made, list):
        return row
    values = [record(result.get("value")) for one in records(made) for result in records(one.get("result"))]
    said = {kind: [text for value in values for text in as_list(value.get(kind))] for kind in ("text", "choices")}
    captions, choices = (unique([text for text in texts if isinstance(text, str)]) for texts in said.values())
    return {**data, **({"caption": captions} if captions else {}), **({"labels": choices} if choices else {})}


def rows_of_via(content: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """A picture's file and attributes, and the names of its regions' classes; nothing of another file."""
    pictures = content.get("_via_img_metadata", content)
    if not isinstance(pictures, dict):
        return
    for about in pictures.values():
        if not isinstance(about, dict) or not isinstance(about.get("filename"), str) or "regions" not in about:
            return
        yield {"file_name": about["filename"], **record(about.get("file_attributes"))}


def of_labelme(row: dict[str, Any]) -> dict[str, Any]:
    """The names of the shapes in a picture, without their outlines and the picture itself; another row as it is."""
    shapes = row.get("shapes")
    if not isinstance(shapes, list) or "imagePath" not in row:
        return row
    labels = unique([str(shape.get("label", "")) for shape in records(shapes)])
    set_ones = [name for name, value in record(row.get("flags")).items() if value is True]
    return {"labels": [*set_ones, *labels]}


def of_fiftyone(row: dict[str, Any]) -> dict[str, Any]:
    """The row with the names of its classes and detections; another row as it is."""
    found: list[dict[str, Any]] = []
    for value in (value for value in records(list(row.values())) if value.get("_cls")):
        several = records(value.get("classifications") or value.get("detections"))
        found += [value] if value["_cls"] == "Classification" else several
    labels = unique([str(item.get("label") or "") for item in found])
    return {**row, "labels": labels} if labels else row


def rows_of_classes(content: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """FiftyOne's {"classes": ["house"], "labels": {"a": 0}}; nothing of another file."""
    classes, labels = content.get("classes"), content.get("labels")
    if not isinstance(classes, list) or not isinstance(labels, dict):
        return
    for name, number in labels.items():
        if isinstance(number, int) and 0 <= number < len(classes):
            yield {"file_name": name, "label": classes[number]}


def of_question(row: dict[str, Any]) -> dict[str, Any]:
    """Roboflow's rows for vision-language models: `suffix` is the answer; `<loc` begins a box in it."""
    suffix = row.get("suffix")
    if "prefix" not in row or not isinstance(suffix, str) or "<loc" in suffix:
        return row
    return {"caption": suffix, **{name: value for name, value in row.items() if name not in ("prefix", "suffix")}}


OF_TOOLS = (of_label_studio, of_fiftyone, of_question)  # each changes rows of its own kind alone


def of_via_csv(row: dict[str, Any]) -> dict[str, Any]:
    """A row of VIA's csv with the attributes of its file; another row as it is."""
    if "file_attributes" not in row or "region_attributes" not in row:
        return row
    try:
        attributes = json.loads(row["file_attributes"] or "{}")
    except (ValueError, TypeError, RecursionError):
        attributes = {}
    return {"file_name": row.get("filename"), **record(attributes)}


def of_one_hot(rows: Sequence[dict[str, Any]]) -> Sequence[dict[str, Any]]:
    """The rows of a table with a column a class (Roboflow, ArtDL), 1 in those of the picture, with these as labels;
    other rows as they are. Flags are no classes (`blurry`, `reviewed`): most rows have none of them, or all the same.
    """
    names = list(rows[0]) if rows else []
    for some in (rows[:_FIRST], rows):  # of a large table of something else the first rows tell
        cells = {name: {str(row.get(name, "")).strip() for row in some} for name in names}
        marks = [name for name in names if cells[name] <= _MARKS and not _FLAG.match(name) and not split_column([name])]
        if len(marks) < 2 or any(caption_columns([name for name in names if name not in marks])):
            return rows
    others = [name for name in names if name not in marks]
    labels = [[name for name in marks if str(row.get(name)).strip() == "1"] for row in rows]
    if 2 * sum(map(bool, labels)) <= len(rows) or (
        len(labels[0]) > 1 < len(rows) and labels.count(labels[0]) == len(rows)
    ):
        return rows
    return [{**{name: row.get(name) for name in others}, "labels": told} for row, told in zip(rows, labels)]
