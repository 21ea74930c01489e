"""From a request to jobs for the engine: what this server paints, and what it says to all else."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from typing import Any

from diffusion_art.diffusion.noise import seeds_from
from diffusion_art.diffusion.samplers import SAMPLERS, Sampler, by_name
from diffusion_art.errors import UserError
from diffusion_art.runs import Run
from diffusion_art.serving.api.errors import ApiError, of_mistake, shown
from diffusion_art.serving.api.pictures import Size, size_of
from diffusion_art.serving.api.schema import ImageRequest, Model
from diffusion_art.serving.engine.jobs import Job
from diffusion_art.serving.settings import Settings
from diffusion_art.sizes import Size as Painted


@dataclass(frozen=True)
class Output:
    """How a picture is answered: its size, its format, and the quality of JPEG and WebP."""

    size: Size
    format: str = "png"
    quality: int | None = None


def no_sampler(name: str) -> ApiError:
    message = f"There is no sampler {shown(name)}; choose one of {', '.join(SAMPLERS)}."
    return ApiError(400, message, param="sampler", code="invalid_value")


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
            raise ApiError(
                400,
                f"At most {limits.max_n} pictures at a time here, not {shown(count) or 'that many'}.",
                param="n",
                code="too_many_pictures",
            )
        self.check_prompt(request.prompt, "prompt")
        self.check_prompt(request.negative_prompt or "", "negative_prompt")
        if not request.prompt.strip():
            raise ApiError(400, "The prompt is empty: say what to paint.", param="prompt", code="empty_prompt")
        if request.stream and request.response_format == "url":
            raise ApiError(
                400,
                "A stream carries pictures as b64_json; drop response_format or stream.",
                param="response_format",
                code="invalid_value",
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

    def painted_size(self, asked: str | None) -> Painted:
        """A size that the model paints, its square where none is asked for. ApiError 400 for another."""
        size = self.size_of(asked, 1)
        if size.enlarged:
            raise ApiError(
                400,
                f"This model paints {', '.join(self.model.painted_sizes)}, and floats are not enlarged.",
                param="size",
                code="invalid_size",
            )
        return size.painted

    def answers_with_url(self, request: ImageRequest) -> bool:
        """As asked; where nothing is said, as OpenAI's: the dall-e models with a url, the others in base64."""
        if request.response_format is not None or request.stream:
            return request.response_format == "url"
        return (request.model or "").startswith("dall-e")

    def sampler_of(
        self, name: str | None = None, num_steps: int | None = None, times: Sequence[float] | None = None
    ) -> Sampler:
        """The run's own sampler, or another one with the run's number of steps, or its own number, or grid of times."""
        self._check_steps(num_steps, "num_inference_steps")
        own = self._sampler if num_steps is None else self._sampler.in_steps(num_steps)
        if name is not None and name not in SAMPLERS:
            raise no_sampler(name)
        if name is not None and name != own.name:
            own = by_name(name, num_steps=own.num_steps, spacing=own.spacing)  # its grid was fitted to the other
        if times is None:
            return own
        steps = len(times) - 1
        self._check_steps(steps, "times")
        if num_steps not in (None, steps):
            raise ApiError(
                400,
                f"These times make {steps} steps, and num_inference_steps={num_steps}: drop one of the two.",
                param="times",
                code="invalid_value",
            )
        try:
            return replace(own, times=times)
        except UserError as error:
            raise of_mistake(error, param="times") from None

    def _check_steps(self, num_steps: int | None, param: str) -> None:
        most = self.settings.limits.max_steps
        if num_steps is not None and num_steps > most:
            raise ApiError(
                400,
                f"At most {most} steps here, not {shown(num_steps) or 'that many'}.",
                param=param,
                code="too_many_steps",
            )

    def guidance_of(self, request: ImageRequest) -> dict[str, Any]:
        """How guidance is tempered: as in the run's own sample grids, but for what the request says."""
        if request.guidance_threshold and not self.run.model.codec.bounded:
            raise ApiError(
                400,
                "This model's latents have no range to fit; use guidance_rescale instead.",
                param="guidance_threshold",
                code="invalid_value",
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
            raise ApiError(
                400,
                f"The {param.replace('_', ' ')} has {len(prompt):,} characters; {most:,} are the most.",
                param=param,
                code="prompt_too_long",
            )
