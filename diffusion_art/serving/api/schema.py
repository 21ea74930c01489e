"""What goes over the wire, as OpenAI's Images API has it, with a few fields of our own on top.

The models say what is well formed; what this server's model can do (its size, its samplers, its limits) is checked
where it is known, in `studio.py`. Fields that OpenAI's clients send and that mean nothing here are taken and ignored;
unknown ones are refused by name, unless they are null or empty.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, model_validator

from diffusion_art.diffusion.samplers.base import ASKED_LIMIT

Time = Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)]
Ignored = Annotated[Any, Field(description="OpenAI's clients send it; it is ignored.")]


def _whole(value: Any) -> Any:
    """7 for the 7.0 of clients whose language has one kind of number: JSON has no other either."""
    return int(value) if isinstance(value, float) and value.is_integer() else value


def _format(value: Any) -> Any:
    """`jpeg` for JPG, as files are called."""
    name = value.lower() if isinstance(value, str) else value
    return "jpeg" if name == "jpg" else name


Whole = Annotated[int, BeforeValidator(_whole)]
Seed = Annotated[int, Field(ge=-1, lt=ASKED_LIMIT), BeforeValidator(_whole)]
Format = Annotated[Literal["png", "jpeg", "webp"], BeforeValidator(_format)]


def asked_for(fields: Any, *, kept: Collection[str] = ()) -> Any:
    """The fields of a request without those that a client has and leaves null or empty: they ask for nothing."""
    if not isinstance(fields, dict):
        return fields
    return {name: value for name, value in fields.items() if name in kept or value not in (None, "")}


class ImageRequest(BaseModel):
    """Pictures for a prompt."""

    model_config = ConfigDict(
        extra="forbid",
        strict=True,
        json_schema_extra={"example": {"prompt": "Claude Monet / Water Lilies / Impressionism", "n": 1, "seed": 7}},
    )

    prompt: str = Field(min_length=1, description="The caption to paint.")
    model: str | None = Field(None, description="The model's name, see /v1/models. Null: the one there is.")
    n: Annotated[Whole, Field(ge=1)] | None = Field(
        None, description="Pictures, at most limits.n of /v1/models. Null: 1."
    )
    size: str | None = Field(
        None,
        description='"WIDTHxHEIGHT", to which a picture is enlarged if the model paints another; "auto": its square.',
        examples=["auto"],
    )
    response_format: Literal["url", "b64_json"] | None = Field(
        None,
        description="url: an address that serves the picture for a while. Null: url for dall-e names, else b64_json.",
    )
    output_format: Format | None = Field(None, description="Null: png.")
    output_compression: Annotated[Whole, Field(ge=0, le=100)] | None = Field(
        None, description="Quality of jpeg and webp, in percent; webp is lossless at 100. Null: 95."
    )
    stream: bool | None = Field(None, description="Answer with server-sent events.")
    partial_images: Annotated[Whole, Field(ge=0, le=3)] | None = Field(
        None, description="With stream: looks at the unfinished picture on the way."
    )
    user: Ignored = None
    quality: Ignored = None
    background: Ignored = None
    style: Ignored = None
    complexity: Ignored = None
    moderation: Ignored = None
    safety_identifier: Ignored = None

    negative_prompt: str | None = Field(None, description="What to steer away from, with guidance_scale above 1.")
    num_inference_steps: Annotated[Whole, Field(ge=1)] | None = Field(
        None, description="Steps of the sampler. Null: as the run's own sample grids."
    )
    times: Annotated[list[Time], Field(min_length=2, fail_fast=True)] | None = Field(
        None,
        description="Where the sampler stops, falling from 1 (noise) to 0 (the picture); one more than the steps, "
        "which they replace. Null: the run's own, or evenly spread.",
        examples=[[1, 0.7, 0.3, 0]],
    )
    guidance_scale: Annotated[float, Field(ge=0, le=20, allow_inf_nan=False)] | None = Field(
        None, description="1 is plain conditional, more follows the prompt harder. Null: the run's own."
    )
    guidance_interval: Annotated[list[Time], Field(min_length=2, max_length=2)] | None = Field(
        None,
        description="[low, high]: guide at these times only, the rest costs half; [0, 1]: at all. Null: the run's own.",
        examples=[[0.2, 0.8]],
    )
    guidance_rescale: Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)] | None = Field(
        None, description="Pull the contrast back to that without guidance; 0: not at all. Null: the run's own."
    )
    guidance_threshold: Annotated[float, Field(ge=0, lt=1, allow_inf_nan=False)] | None = Field(
        None,
        description="Dynamic thresholding: the share of values that must fit the range before clipping, 0.995 is "
        "usual; 0: only clip. Null: the run's own.",
    )
    seed: Seed | None = Field(
        None, description="Of the first picture; the next ones count up. Its low 32 bits count. Null or -1: any."
    )
    sampler: str | None = Field(None, description="See /v1/models for the choices. Null: the run's own.")

    @model_validator(mode="before")
    @classmethod
    def _without_unset(cls, fields: Any) -> Any:
        return asked_for(fields, kept=("prompt",))


class Picture(BaseModel):
    """One picture of an answer: `b64_json` or `url`."""

    b64_json: str | None = None
    url: str | None = None
    revised_prompt: str | None = None
    seed: int


class ImagesAnswer(BaseModel):
    """The pictures of a request, in the order of their seeds."""

    created: int
    data: list[Picture]
    output_format: Format
    size: str = Field(description="Of the pictures as they come.")
    painted_size: str = Field(description="Of the pictures as the model painted them, before they were enlarged.")
    background: Literal["opaque"] = "opaque"


class Usage(BaseModel):
    """OpenAI's clients expect it; nothing is billed by tokens here."""

    total_tokens: int = 0
    input_tokens: int = 0
    output_tokens: int = 0
    input_tokens_details: dict[str, int] = {"text_tokens": 0, "image_tokens": 0}


class PictureEvent(BaseModel):
    """An event: one picture of a stream, on the way or done. `image_index` counts the pictures of the request."""

    type: str
    b64_json: str
    created_at: int
    size: str
    painted_size: str
    output_format: Format
    quality: Literal["auto"] = "auto"
    background: Literal["opaque"] = "opaque"
    image_index: int
    seed: int


class PartialImage(PictureEvent):
    """The picture as the model sees it on the way. `progress` is the share of network calls done."""

    type: Literal["image_generation.partial_image"] = "image_generation.partial_image"
    partial_image_index: int
    progress: float


class CompletedImage(PictureEvent):
    """A picture is done. With `n` above 1 there is one event for each."""

    type: Literal["image_generation.completed"] = "image_generation.completed"
    usage: Usage = Usage()


class ErrorBody(BaseModel):
    message: str
    type: str
    param: str | None
    code: str | None


class ErrorAnswer(BaseModel):
    """Every answer that is no success."""

    error: ErrorBody


class Defaults(BaseModel):
    """What a request gets that does not say."""

    num_inference_steps: int
    times: list[float] | None
    guidance_scale: float
    guidance_interval: list[float] | None
    guidance_rescale: float
    guidance_threshold: float
    sampler: str


class Bounds(BaseModel):
    """The most that a request may ask for."""

    n: int
    num_inference_steps: int
    guidance_scale: float = 20.0
    prompt_characters: int
    sizes: str
    side_px: int


class Model(BaseModel):
    """A model as OpenAI's API lists it, and what a client needs to know to ask it well."""

    id: str
    object: Literal["model"] = "model"
    created: int
    owned_by: str = "diffusion_art"
    size: str
    painted_sizes: list[str] = Field(description="What it was trained on, from tall to wide: `size` alone, or buckets.")
    checkpoint: str
    step: int
    trained: str = Field(description="On what and how long, in a sentence.")
    better: str = Field(description="What to type for a better model.")
    samplers: list[str]
    defaults: Defaults
    limits: Bounds


class ModelList(BaseModel):
    object: Literal["list"] = "list"
    data: list[Model]


class CaptionItem(BaseModel):
    """A caption to paint. `image` is a placeholder that EIR's clients send: ignored, and may be absent."""

    model_config = ConfigDict(extra="forbid", strict=True)

    caption: str
    image: str | None = None
    seed: Seed | None = Field(None, description="Null or -1: any.")
    size: str | None = Field(None, description="One of the model's `painted_sizes`. Null: its square.")

    @model_validator(mode="before")
    @classmethod
    def _without_unset(cls, fields: Any) -> Any:
        return asked_for(fields, kept=("caption",))


class FloatPicture(BaseModel):
    image: str = Field(description="Base64 of little-endian float32, channels x height x width, in [0, 1].")


class Shape(BaseModel):
    type: Literal["image"] = "image"
    shape: list[int] = Field(min_length=3, max_length=3, description="Channels, height, width.")


class Info(BaseModel):
    """As EIR's server describes its model: what pictures go in and come out."""

    inputs: dict[str, Shape]
    outputs: dict[str, Shape]


class Predictions(BaseModel):
    """One picture for each caption, in their order."""

    result: list[FloatPicture]


class Suggestions(BaseModel):
    """Words of the training set to build captions from, the most frequent first; `years` is first and last."""

    template: str
    artists: list[str]
    titles: list[str]
    styles: list[str]
    genres: list[str]
    years: list[int]
    prompts: list[str]


class Health(BaseModel):
    status: Literal["ok"] = "ok"
    model: str
    version: str
