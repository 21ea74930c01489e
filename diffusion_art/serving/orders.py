"""From a request to jobs for the engine: what this server paints, and what it says to all else.

Of the sizes that clients ask for the model paints some, and for others its picture of the nearest shape is enlarged.
By a whole factor each pixel becomes a square; otherwise the picture is resampled (Lanczos). Where it has not the shape
asked for, it stands whole in the middle of white paper, as `fit=letterbox` does.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from fractions import Fraction
from functools import partial
from typing import Any

import numpy as np
from jaxtyping import UInt8
from PIL import Image

from diffusion_art.diffusion.samplers import SAMPLERS, Sampler, by_name, seeds_from
from diffusion_art.errors import UserError
from diffusion_art.runs import Run
from diffusion_art.serving.api.errors import ApiError, invalid, of_mistake, shown
from diffusion_art.serving.api.schema import ImageRequest, Model
from diffusion_art.serving.engine.jobs import Job
from diffusion_art.serving.settings import Limits, Settings
from diffusion_art.sheets import PAPER
from diffusion_art.sizes import Size as Painted
from diffusion_art.sizes import named, nearest

LEAST_PX = 16


@dataclass(frozen=True)
class Size:
    """Pixels of an answer's picture, and of the one that the model paints for it (width, height)."""

    width: int
    height: int
    painted: Painted

    def __str__(self) -> str:
        return f"{self.width}x{self.height}"

    @property
    def enlarged(self) -> bool:
        return (self.width, self.height) != self.painted

    @property
    def whole(self) -> bool:
        """Whether the picture is enlarged by a whole factor."""
        return self._factor.denominator == 1

    @property
    def _factor(self) -> Fraction:
        """What the painted picture is enlarged by so that it still fits."""
        return min(Fraction(self.width, self.painted[0]), Fraction(self.height, self.painted[1]))

    def story(self) -> dict[str, str]:
        """What the picture's file says of it, in AUTOMATIC1111's words."""
        if not self.enlarged:
            return {}
        return {"Hires resize": str(self), "Hires upscaler": "Nearest" if self.whole else "Lanczos"}

    def fill(self, pixels: UInt8[np.ndarray, "h w 3"]) -> UInt8[np.ndarray, "H W 3"]:
        """The picture in this size."""
        if not self.enlarged:
            return pixels
        width, height = (max(1, round(side * self._factor)) for side in self.painted)
        filter = Image.Resampling.NEAREST if self.whole else Image.Resampling.LANCZOS
        picture = Image.fromarray(pixels).resize((width, height), filter)
        if (width, height) == (self.width, self.height):
            return np.asarray(picture)
        sheet = Image.new("RGB", (self.width, self.height), PAPER)
        sheet.paste(picture, ((self.width - width) // 2, (self.height - height) // 2))
        return np.asarray(sheet)


@dataclass(frozen=True)
class Output:
    """How a picture is answered: its size, its format, and the quality of JPEG and WebP."""

    size: Size
    format: str = "png"
    quality: int | None = None


class Orders:
    """What can be ordered of a run: `jobs_of` a request, within the limits of `settings`; `model` says of both."""

    def __init__(self, run: Run, settings: Settings, model: Model) -> None:
        self.run, self.settings, self.model = run, settings, model
        self.guidance = run.guidance()
        self._sampler, self._guidance_scale = run.sampler(), run.guidance_scale()

    def jobs_of(self, request: ImageRequest) -> list[Job]:
        """One job for each picture, seeds counting up.

        Raises:
            ApiError: 400 for what this server does not paint, 404 for another model.
        """
        limits = self.settings.limits
        self.check_model(request.model)
        count = request.n or 1
        if count > limits.max_n:
            raise invalid(
                f"At most {limits.max_n} pictures at a time here, not {shown(count) or 'that many'}.",
                param="n",
                code="too_many_pictures",
            )
        self.check_prompt(request.prompt, "prompt")
        self.check_prompt(request.negative_prompt or "", "negative_prompt")
        if not request.prompt.strip():
            raise invalid("The prompt is empty: say what to paint.", param="prompt", code="empty_prompt")
        if request.stream and request.response_format == "url":
            raise invalid(
                "A stream carries pictures as b64_json; drop response_format or stream.", param="response_format"
            )
        sampler = self.sampler_of(request.sampler, request.num_inference_steps, request.times)
        asked = {"negative_prompt": request.negative_prompt, "guidance_scale": request.guidance_scale}
        guidance, looks = self.guidance_of(request), (request.partial_images or 0) if request.stream else 0
        painted = self.size_of(request.size, count).painted
        return [
            self.job(request.prompt, seed, sampler, **asked, guidance=guidance, previews=looks, size=painted)
            for seed in seeds_from(request.seed, count)
        ]

    def job(
        self,
        prompt: str,
        seed: int,
        sampler: Sampler,
        *,
        negative_prompt: str | None = None,
        guidance_scale: float | None = None,
        guidance: dict[str, Any] | None = None,
        previews: int = 0,
        size: Painted | None = None,
    ) -> Job:
        """One picture; what is not given is the run's own."""
        scale = self._guidance_scale if guidance_scale is None else float(guidance_scale)
        tempered = self.guidance if guidance is None else guidance
        return Job(prompt, seed, sampler, scale, negative_prompt or "", **tempered, previews=previews, size=size)

    def output_of(self, request: ImageRequest) -> Output:
        """How the pictures of a request are answered. ApiError 400 for a size that is not given here."""
        size = self.size_of(request.size, request.n or 1)
        return Output(size, request.output_format or "png", request.output_compression)

    def size_of(self, asked: str | None, pictures: int) -> Size:
        """The size of so many pictures. ApiError 400 for one that is not given here."""
        model = self.run.model
        asked_of = {"painted_px": model.image_size_px, "others": model.sizes}
        return size_of(asked, **asked_of, pictures=pictures, limits=self.settings.limits)

    def sampler_of(
        self, name: str | None = None, num_steps: int | None = None, times: Sequence[float] | None = None
    ) -> Sampler:
        """The run's own sampler, or another one with the run's number of steps, or its own number, or grid of times."""
        self._check_steps(num_steps, "num_inference_steps")
        own = self._sampler if num_steps is None else self._sampler.in_steps(num_steps)
        if name is not None and name not in SAMPLERS:
            choices = ", ".join(SAMPLERS)
            raise invalid(f"There is no sampler {shown(name)}; choose one of {choices}.", param="sampler")
        if name is not None and name != own.name:
            own = by_name(name, num_steps=own.num_steps, spacing=own.spacing)  # its grid was fitted to the other
        if times is None:
            return own
        steps = len(times) - 1
        self._check_steps(steps, "times")
        if num_steps not in (None, steps):
            raise invalid(
                f"These times make {steps} steps, and num_inference_steps={num_steps}: drop one of the two.",
                param="times",
            )
        try:
            return replace(own, times=times)
        except UserError as error:
            raise of_mistake(error, param="times") from None

    def _check_steps(self, num_steps: int | None, param: str) -> None:
        most = self.settings.limits.max_steps
        if num_steps is not None and num_steps > most:
            raise invalid(
                f"At most {most} steps here, not {shown(num_steps) or 'that many'}.",
                param=param,
                code="too_many_steps",
            )

    def guidance_of(self, request: ImageRequest) -> dict[str, Any]:
        """How guidance is tempered: as in the run's own sample grids, but for what the request says."""
        if request.guidance_threshold and not self.run.model.codec.bounded:
            raise invalid(
                "This model's latents have no range to fit; use guidance_rescale instead.", param="guidance_threshold"
            )
        try:
            return self.run.guidance(
                interval=request.guidance_interval,
                rescale=request.guidance_rescale,
                threshold=request.guidance_threshold,
            )
        except UserError as error:  # the other two are numbers, and the schema has their range
            raise of_mistake(error, param="guidance_interval") from None

    def check_model(self, name: str | None) -> None:
        """ApiError 404 for a model that is not served here."""
        if not name or name == self.model.id or any(fnmatchcase(name, alias) for alias in self.settings.aliases):
            return
        named = f" {shown(name)}" if shown(name) else " of that name"
        raise ApiError(
            404, f"There is no model{named}; this is '{self.model.id}'.", param="model", code="model_not_found"
        )

    def check_prompt(self, prompt: str, param: str) -> None:
        """ApiError 400 for a prompt that is longer than is read here."""
        most = self.settings.limits.max_prompt_chars
        if len(prompt) > most:
            raise invalid(
                f"The {param.replace('_', ' ')} has {len(prompt):,} characters; {most:,} are the most.",
                param=param,
                code="prompt_too_long",
            )


def size_of(
    asked: str | None, *, painted_px: int, pictures: int, limits: Limits, others: Sequence[Painted] = ()
) -> Size:
    """The size of an answer's pictures: the one asked for, or the model's square. `others` are painted too.

    Raises:
        ApiError: 400 for what is no size, is too small or large, or, with `limits.sizes=exact`, is another.
    """
    refusal, square = partial(invalid, param="size", code="invalid_size"), (painted_px, painted_px)
    own = {named(size): Size(*size, size) for size in (square, *others)}
    asked = asked and asked.lower()
    if asked in (None, "", "auto"):
        return own[named(square)]
    if asked in own:
        return own[asked]
    found = re.fullmatch(r"(\d{1,5})x(\d{1,5})", asked or "", flags=re.ASCII)
    if limits.sizes == "any" and found is None:
        most = f"with sides of at most {limits.max_size_px} pixels"
        raise refusal(f"A size is 'WIDTHxHEIGHT' {most}, or 'auto', not {shown(asked) or 'that'}.")
    if limits.sizes == "exact" or found is None:
        paints = ", ".join(map(named, others)) if others else named(square)
        raise refusal(f"This model paints {paints}, not {shown(asked) or 'that'}: say '{named(square)}' or 'auto'.")
    width, height = int(found[1]), int(found[2])
    shape = nearest(width, height, others) if others and width and height else square
    size, most = Size(width, height, shape), limits.max_size_px
    if not LEAST_PX <= min(size.width, size.height) <= max(size.width, size.height) <= most:
        raise refusal(f"A side may have {LEAST_PX} to {most} pixels here, which {size} does not fit.")
    if pictures * size.width * size.height > limits.max_pixels:
        raise refusal(
            f"{pictures} pictures of {size} are more than the {limits.max_pixels:,} pixels of an answer: "
            "ask for fewer or smaller ones."
        )
    return size
