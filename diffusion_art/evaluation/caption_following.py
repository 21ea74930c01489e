"""Caption following: does the model paint the style and the colours it is asked for?

The painter knows the truth behind each of its captions, and the judge reads it back from a picture. So the
score is a share of prompts: style right; both colours right; and, for style x colour combinations that no
training picture showed, both at once. Anything that turns captions and seeds into images can be scored: a
model, the painter itself (nearly 100 %), one that ignores captions (1 in 16 styles, 1 in 45 colour pairs).
"""

from __future__ import annotations

import json
from collections.abc import Callable, Collection
from itertools import count as count_up
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from diffusion_art.evaluation.judge import Judge, judge_scores, load_judge
from diffusion_art.evaluation.progress import progressing
from diffusion_art.files import written
from diffusion_art.sources.painter import COLOUR_NAMES, STYLES, Commission, Painter

# captions, seeds -> images in [-1, 1]
Generate = Callable[[list[str], list[int]], Float[Tensor, "b 3 h w"]]

PROMPT_SEED = 9_001_000  # of the painter that writes the prompts: far from the seeds of data sets


def painter_captions(painter: Painter) -> frozenset[str]:
    """Every caption of a painter's data set."""
    return frozenset(painter.commission(index).caption for index in range(len(painter)))


def unseen_prompts(
    count: int, *, seed: int = 0, held_out: bool = False, exclude: Collection[str] = frozenset()
) -> list[Commission]:
    """`count` different captions, none of them in `exclude`, styles in turn.

    With `held_out`, the style x colour combinations that the painter keeps from training; else the others.
    """
    painter = Painter(seed=PROMPT_SEED + seed, held_out=held_out)
    taken, chosen = set(exclude), []
    for round_ in count_up():
        for place in range(len(STYLES)):
            if len(chosen) == count:
                return chosen
            asked = painter.commission(round_ * len(STYLES) + place)
            if asked.caption not in taken:
                taken.add(asked.caption)
                chosen.append(asked)
    return chosen


def caption_following(
    generate: Generate,
    *,
    count: int = 240,
    held_out_count: int = 96,
    seed: int = 0,
    exclude: Collection[str] | None = None,
    batch_size: int = 48,
    judge: Judge | None = None,
    progress: str = "",
) -> dict[str, Any]:
    """Ask for pictures by unseen captions and have the judge name what came.

    `exclude` holds the captions the model was trained on; None stands for those of the painter's default data
    set. Returns shares with counts beside them, ready for json: `style` and `palette` over `count` prompts of
    seen combinations, `held_out` (style and both colours at once) over `held_out_count` prompts of unseen
    ones, `by_style`, `by_genre` and `by_artist`, the judge's own accuracy, and in `rows` each prompt with what the
    judge saw.
    """
    exclude = painter_captions(Painter()) if exclude is None else exclude
    judge = judge or load_judge()
    asked = [(prompt, False) for prompt in unseen_prompts(count, seed=seed, exclude=exclude)]
    asked += [(prompt, True) for prompt in unseen_prompts(held_out_count, seed=seed, held_out=True, exclude=exclude)]
    rows: list[dict[str, Any]] = []
    starts = range(0, len(asked), batch_size)
    for start in progressing(starts, progress, of=len(starts)) if progress else starts:
        part = asked[start : start + batch_size]
        seeds = [seed * 1_000_000 + row for row in range(start, start + len(part))]
        images = generate([prompt.caption for prompt, _ in part], seeds)
        verdict = judge.verdict(torch.nan_to_num(images.cpu().float()))
        rows += [
            _row(prompt, held_out, seed=number, style=style, colours=colours)
            for (prompt, held_out), number, style, colours in zip(
                part, seeds, verdict.styles.tolist(), verdict.colours.tolist()
            )
        ]
    seen, unseen = [row for row in rows if not row["held_out"]], [row for row in rows if row["held_out"]]
    return {
        **_share("style", seen, "style_right"),
        **_share("palette", seen, "palette_right"),
        **_share("held_out", unseen, "style_right", "palette_right"),
        **_share("held_out_style", unseen, "style_right"),
        **_share("held_out_palette", unseen, "palette_right"),
        **{f"by_{column}": _by(column, seen) for column in ("style", "genre", "artist")},
        "judge": judge_scores(),
        "rows": rows,
    }


def _row(prompt: Commission, held_out: bool, *, seed: int, style: int, colours: list[int]) -> dict[str, Any]:
    return {
        "caption": prompt.caption,
        "seed": seed,
        "held_out": held_out,
        "style": STYLES[prompt.style].name,
        "genre": prompt.columns["genre"],
        "artist": prompt.columns["artist"],
        "judged_style": STYLES[style].name,
        "judged_colours": [COLOUR_NAMES[number] for number in colours],
        "style_right": style == prompt.style,
        "palette_right": sorted(colours) == sorted(prompt.colours),
    }


def _by(column: str, rows: list[dict[str, Any]]) -> dict[str, Any]:
    """The shares of each style, genre or artist, with how many prompts there were; styles in the painter's order."""
    found = {row[column] for row in rows}
    values = [style.name for style in STYLES if style.name in found] if column == "style" else sorted(found)
    return {
        value: {**_share("style", of_value, "style_right"), **_share("palette", of_value, "palette_right")}
        for value in values
        if (of_value := [row for row in rows if row[column] == value])
    }


def _share(name: str, rows: list[dict[str, Any]], *keys: str) -> dict[str, float | int]:
    """{name: share of rows where all of `keys` hold, name_count: how many rows}. No rows: a share of 0."""
    hits = sum(all(row[key] for key in keys) for row in rows)
    return {name: hits / len(rows) if rows else 0.0, f"{name}_count": len(rows)}


def summary(result: dict[str, Any]) -> str:
    """`caption following: style 93.3 % of 240 prompts, ...` in one line."""
    parts = (("style", "style"), ("both colours", "palette"), ("held-out style and colours", "held_out"))
    told = [f"{label} {100 * result[key]:.1f} % of {result[f'{key}_count']}" for label, key in parts]
    return "caption following: " + ", ".join(told)


def save_json(result: dict[str, Any], path: Path) -> None:
    """Write the result as json, whole or not at all."""
    with written(path) as partial:
        partial.write_text(json.dumps(result, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
