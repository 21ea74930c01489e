"""Words to build captions from: what the training set's pictures are called, as its shards say.

Where the shards are not at hand, the prompts of the run's sample grids stand in for them.
"""

from __future__ import annotations

import logging
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from diffusion_art.captions.captioner import ART_TEMPLATE, clean
from diffusion_art.errors import UserError
from diffusion_art.runs import Run
from diffusion_art.serving.api.schema import Suggestions
from diffusion_art.shards.places import Address, components_of
from diffusion_art.shards.reader import ShardSet

log = logging.getLogger(__name__)

FIELDS = ("artist", "title", "style", "genre", "date")
READ = 20_000  # samples of a data set, evenly spread: WikiArt's 103 thousand take no longer than a smaller set's
MOST = {"artist": 500, "title": 300, "style": 100, "genre": 100}
_YEAR = re.compile(r"\b(\d{3,4})\b")


def suggest(run: Run) -> Suggestions:
    """Suggestions for a run. Reads its training shards, so it takes up to a second."""
    folders = list(shard_folders(run))
    words: dict[str, Counter[str]] = {field: Counter() for field in FIELDS}
    template = None
    for folder in folders:
        try:
            shards = ShardSet.open(folder)
        except UserError as error:
            log.info("no suggestions from %s: %s", folder, error)
            continue
        template = template or shards.caption_template
        _count(metadata_of(shards, READ // len(folders)), words)
    template = template or ART_TEMPLATE
    if not words["artist"] and not words["style"]:
        _count((of_prompt(prompt, template) for prompt in run.prompts), words)
    lists = {field: [word for word, _ in words[field].most_common(most)] for field, most in MOST.items()}
    years = sorted(int(found[1]) for date in words["date"] if (found := _YEAR.search(date)))
    return Suggestions(
        template=template,
        artists=lists["artist"],
        titles=lists["title"],
        styles=lists["style"],
        genres=lists["genre"],
        years=[years[0], years[-1]] if years else [],
        prompts=run.prompts,
    )


def shard_folders(run: Run) -> Iterator[Path]:
    """The folders that `data.path` of the run's config names, as far as they are found: from here, or from a folder
    that the run lies in.
    """
    path = (run.config.get("data") or {}).get("path")
    if not path:
        return
    try:
        components = components_of(path)
    except (UserError, KeyError, TypeError):
        return
    places = [Path.cwd(), *run.path.resolve().parents]
    for component in components:
        if isinstance(component.path, Address):
            continue
        found = next((place / component.path for place in places if (place / component.path).is_dir()), None)
        if found is not None:
            yield found


def metadata_of(shards: ShardSet, most: int) -> Iterator[Mapping[str, Any]]:
    """What is known of at most so many training pictures, evenly spread."""
    samples = shards.splits.get("train", 0)
    for number in range(min(samples, most)):
        try:
            metadata = shards.metadata("train", number * samples // min(samples, most))
        except (OSError, ValueError):
            continue
        if isinstance(metadata, dict):
            yield metadata


def of_prompt(prompt: str, template: str) -> dict[str, str]:
    """A prompt taken apart by the template it was made with; {} where they do not agree."""
    fields = re.findall(r"\{(\w+)\}", template)
    separators = set(re.split(r"\{\w+\}", template)[1:-1])
    parts = prompt.split(separators.pop()) if len(separators) == 1 else []
    return dict(zip(fields, parts)) if len(parts) == len(fields) else {}


def _count(pictures: Iterable[Mapping[str, Any]], words: dict[str, Counter[str]]) -> None:
    for picture in pictures:
        for field, counter in words.items():
            if isinstance(value := picture.get(field), str) and (word := clean(value)):
                counter[word] += 1
