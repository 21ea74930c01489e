"""Caption following: style and colours as the painter's judge sees them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from diffusion_art.evaluation.caption_following import caption_following, painter_captions, save_json, summary
from diffusion_art.evaluation.metrics.metric import Figure, Metric, at_least
from diffusion_art.evaluation.subject import Subject


class CaptionFollowing(Metric):
    """How often a picture shows the style and the two colours that its caption asks for, as a judge sees it.

    For runs on the painter's pictures, whose truth is known. Every prompt with the verdict goes into
    `caption_following.json`.
    """

    figures = (
        Figure("style", "style right", "higher", percent=True),
        Figure("palette", "both colours right", "higher", percent=True),
        Figure("held_out", "unseen combinations right", "higher", percent=True),
    )

    def __init__(self, *, count: int = 240, held_out_count: int = 96) -> None:
        at_least(1, count=count)
        at_least(0, held_out_count=held_out_count)
        self.prompts = count
        self.held_out_prompts = held_out_count
        self.own_pictures = count + held_out_count

    def refusal(self, subject: Subject) -> str | None:
        if subject.data.painter is not None:
            return None
        return (
            "caption_following asks for the painter's styles and colours, and this run was not trained on the "
            "painter's pictures"
        )

    def measure(self, subject: Subject) -> dict[str, Any]:
        painter = subject.data.painter
        result = caption_following(
            subject.paint,
            count=self.prompts,
            held_out_count=self.held_out_prompts,
            seed=subject.seed,
            batch_size=subject.batch_size,
            exclude=painter_captions(painter) if painter is not None else None,
            progress=f"painting {self.prompts + self.held_out_prompts:,} prompts",
        )
        if subject.folder is not None:
            save_json(result | subject.story, subject.folder / "caption_following.json")
        return {key: value for key, value in result.items() if key != "rows"}

    def count(self, result: Mapping[str, Any]) -> int | None:
        return result["style_count"] + result["held_out_count"]

    def summary(self, result: Mapping[str, Any]) -> str:
        return summary(dict(result))
