"""The judge: a small network that says in which style and in which two colours a picture is painted.

Two views of the picture meet before the verdict. A convolutional one sees texture and layout; a *palette* one
looks at every pixel alone and averages over the page, so that colour is judged by how much of it there is
and not by what it depicts. Pictures larger than 32 px are averaged down first.

It was trained on painter pictures of every style x colour combination, blurred, speckled, compressed and
faded at random, so that it judges generated pictures by what they show rather than by how crisp they are.
Its accuracy on fresh painter pictures is stored with its weights. Train it anew with
`python -m diffusion_art.evaluate judge=train`.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import torch
from jaxtyping import Float, Int
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn
from torch.nn import functional as F

from diffusion_art.errors import UserError
from diffusion_art.files import save_tensors
from diffusion_art.sources.painter import COLOUR_NAMES, STYLES
from diffusion_art.sources.painter.palette import anchors

JUDGE_SIZE_PX = 32
WEIGHTS = Path(__file__).with_name("judge_32px.safetensors")


@dataclass
class Verdict:
    """What the judge sees, per picture."""

    styles: Int[Tensor, " b"]  # index into STYLES
    colours: Int[Tensor, "b 2"]  # indices into COLOUR_NAMES, ascending


def _conv(channels_in: int, channels_out: int, *, stride: int = 1) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(channels_in, channels_out, 3, stride=stride, padding=1, bias=False),
        nn.BatchNorm2d(channels_out),
        nn.ReLU(inplace=True),
    )


class SoftPalette(nn.Module):
    """How much of the page each paint covers: sqrt(mean over pixels of softmax_k(-|x - a_k|^2 / tau)).

    The softmax of squared distances is one 1x1 convolution, since |x|^2 cancels. It starts at the painter's
    anchors and is trained along with the rest.
    """

    def __init__(self, *, tau: float = 0.03) -> None:
        super().__init__()
        paints = torch.from_numpy(anchors()[0]).float() / 127.5 - 1
        self.nearness = nn.Conv2d(3, len(paints), 1)
        self.nearness.load_state_dict(
            {"weight": 2 * paints[:, :, None, None] / tau, "bias": -paints.square().sum(1) / tau}
        )

    def forward(self, images: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b paints"]:
        return (self.nearness(images).softmax(1).mean((2, 3)) + 1e-4).sqrt()


class Judge(nn.Module):
    """Images in [-1, 1] -> logits of 16 styles and of 10 colours."""

    def __init__(self) -> None:
        super().__init__()
        self.texture = nn.Sequential(
            _conv(3, 24),
            _conv(24, 48, stride=2),
            _conv(48, 48),
            _conv(48, 96, stride=2),
            _conv(96, 96),
        )
        self.palette = SoftPalette()
        self.style = nn.Linear(2 * 96 * 4, len(STYLES))
        self.colour = nn.Sequential(
            nn.Linear(len(anchors()[0]) + 96, 64), nn.ReLU(inplace=True), nn.Linear(64, len(COLOUR_NAMES))
        )

    def forward(self, images: Float[Tensor, "b 3 h w"]) -> tuple[Float[Tensor, "b styles"], Float[Tensor, "b colours"]]:
        images = at_judge_size(images)
        texture = self.texture(images)
        # mean and maximum over each quarter of the page: the styles differ in layout as well as in touch
        quarters = [
            F.adaptive_avg_pool2d(texture, 2).flatten(1),
            F.adaptive_max_pool2d(texture, 2).flatten(1),
        ]
        return self.style(torch.cat(quarters, 1)), self.colour(
            torch.cat([self.palette(images), texture.mean((2, 3))], 1)
        )

    @torch.no_grad()
    def verdict(self, images: Float[Tensor, "b 3 h w"]) -> Verdict:
        """The likeliest style and the two likeliest colours."""
        style, colour = self(images)
        return Verdict(style.argmax(1), colour.topk(2, dim=1).indices.sort(1).values)


def at_judge_size(images: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b 3 s s"]:
    """Averaged down (or, if smaller, interpolated up) to the judge's 32 px, clipped to [-1, 1]."""
    images = images.float().clamp(-1, 1)
    if images.shape[-2:] == (JUDGE_SIZE_PX, JUDGE_SIZE_PX):
        return images
    if min(images.shape[-2:]) >= JUDGE_SIZE_PX:
        return F.interpolate(images, size=(JUDGE_SIZE_PX, JUDGE_SIZE_PX), mode="area")
    return F.interpolate(images, size=(JUDGE_SIZE_PX, JUDGE_SIZE_PX), mode="bilinear", align_corners=False)


def save_judge(judge: Judge, path: Path, *, scores: dict[str, float]) -> None:
    """Write weights in half precision (they lose nothing that shows), with labels and scores as metadata."""
    state = {name: value.half() if value.is_floating_point() else value for name, value in judge.state_dict().items()}
    labels = {"styles": [style.name for style in STYLES], "colours": list(COLOUR_NAMES)}
    save_tensors(path, state, metadata={"labels": json.dumps(labels), "scores": json.dumps(scores)})


@lru_cache(maxsize=2)
def load_judge(path: Path = WEIGHTS) -> Judge:
    """The shipped judge, in evaluation mode on the CPU.

    Raises:
        UserError: no whole file of weights there, or trained for other styles or colours than the painter has.
    """
    mend = "Train it anew: python -m diffusion_art.evaluate judge=train"
    if not path.is_file():
        raise UserError(f"The judge's weights are not at {path}. {mend}")
    try:
        with safe_open(path, framework="pt") as file:
            labels = json.loads((file.metadata() or {}).get("labels", "{}"))
            state = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - no mapping
    except SafetensorError as error:
        raise UserError(f"The judge's weights in {path} cannot be read ({error}). {mend}") from error
    if labels != {"styles": [style.name for style in STYLES], "colours": list(COLOUR_NAMES)}:
        raise UserError(f"The judge in {path} knows other styles or colours than today's painter. {mend}")
    judge = Judge()
    judge.load_state_dict(
        {name: value.float() if value.is_floating_point() else value for name, value in state.items()}
    )
    return judge.eval().requires_grad_(False)


def judge_scores(path: Path = WEIGHTS) -> dict[str, float]:
    """The judge's own accuracy on painter pictures it never saw, as measured when it was trained."""
    with safe_open(path, framework="pt") as file:
        return json.loads((file.metadata() or {})["scores"])
