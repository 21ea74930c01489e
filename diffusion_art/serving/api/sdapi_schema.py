"""What goes over the wire below `/sdapi/v1`, as AUTOMATIC1111's web UI has it.

Fields of a request that mean nothing here are ignored, as theirs ignores those it does not know.
"""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator

from diffusion_art.serving.api.schema import Seed, asked_for


def _whole(text: str) -> str:
    """ValueError for half a character, which has no UTF-8."""
    text.encode()
    return text


Text = Annotated[str, AfterValidator(_whole)]


class Txt2Img(BaseModel):
    """Pictures for a prompt."""

    model_config = ConfigDict(
        extra="ignore", json_schema_extra={"example": {"prompt": "a red house", "steps": 20, "cfg_scale": 3, "seed": 7}}
    )

    prompt: Text = Field("", description="The caption to paint.")
    negative_prompt: Text = Field("", description="What to steer away from, with cfg_scale above 1.")
    seed: Seed | None = Field(
        None, description="Of the first picture; the next ones count up. Its low 32 bits count. Null or -1: any."
    )
    steps: Annotated[int, Field(ge=1)] | None = Field(None, description="Null: as the run's own sample grids.")
    cfg_scale: Annotated[float, Field(ge=0, le=20, allow_inf_nan=False)] | None = Field(
        None, description="1 is plain conditional, more follows the prompt harder. Null: the run's own."
    )
    width: Annotated[int, Field(ge=1)] | None = Field(None, description="To which the picture is enlarged. Null: own.")
    height: Annotated[int, Field(ge=1)] | None = Field(None, description="To which it is enlarged. Null: own.")
    enable_hr: bool = Field(False, description="Enlarge it by hr_scale, as a picture of that size is.")
    hr_scale: Annotated[float, Field(ge=1, le=64, allow_inf_nan=False)] = 2
    sampler_name: Text | None = Field(None, description="See /sdapi/v1/samplers. Null: the run's own.")
    sampler_index: Text | None = Field(None, description="The older name of sampler_name.")
    batch_size: Annotated[int, Field(ge=1)] = Field(1, description="Pictures, times n_iter.")
    n_iter: Annotated[int, Field(ge=1)] = 1
    send_images: bool = True
    override_settings: dict[str, Any] | None = Field(
        None, description="sd_model_checkpoint is checked, others ignored."
    )

    @model_validator(mode="before")
    @classmethod
    def _without_unset(cls, fields: Any) -> Any:
        fields = asked_for(fields)
        if isinstance(fields, dict) and not fields.get("enable_hr"):
            return {name: value for name, value in fields.items() if name != "hr_scale"}
        return fields


class Txt2ImgAnswer(BaseModel):
    """PNGs in base64; `info` is JSON: seeds, infotexts and what else they were painted from."""

    images: list[str]
    parameters: dict[str, Any]
    info: str


class State(BaseModel):
    skipped: bool = False
    interrupted: bool = False
    stopping_generation: bool = False
    job: str = ""
    job_count: int = 0
    job_timestamp: str = "0"
    job_no: int = 0
    sampling_step: int = 0
    sampling_steps: int = 0


class Progress(BaseModel):
    """How far the pictures of this API are; 0 while there are none. `current_image` is the first one's latest look."""

    progress: float = 0.0
    eta_relative: float = 0.0
    state: State = State()
    current_image: str | None = None
    textinfo: str | None = None


class SamplerItem(BaseModel):
    name: str
    aliases: list[str]
    options: dict[str, str] = {}


class SchedulerItem(BaseModel):
    name: str = "automatic"
    label: str = "Automatic"
    aliases: list[str] | None = None
    default_rho: float = -1.0
    need_inner_model: bool = False


class ModelItem(BaseModel):
    title: str
    model_name: str
    hash: str | None
    sha256: str | None = None
    filename: str
    config: str | None = None


class UpscalerItem(BaseModel):
    name: str
    model_name: str | None = None
    model_path: str | None = None
    model_url: str | None = None
    scale: float | None = None


class PngInfoRequest(BaseModel):
    image: Text = Field(description="A PNG in base64, or as a data: address.")


class PngInfo(BaseModel):
    info: str
    items: dict[str, str]
    parameters: dict[str, str] = {}


class SdError(BaseModel):
    """Every answer here that is no success."""

    error: str
    detail: str
