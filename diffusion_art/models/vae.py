"""A VAE of diffusers as codec: pictures are diffused as its latents.

    latents = (z - shift) scale,    z the mean of its posterior

Shift and scale are those of its config, so that latents have about unit variance; a channel may have its own.
"""

from __future__ import annotations

import hashlib
import json
import re
import warnings
from collections.abc import Callable, Mapping
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from diffusers.models.autoencoders.autoencoder_dc import AutoencoderDC
from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
from diffusers.models.autoencoders.autoencoder_tiny import AutoencoderTiny
from jaxtyping import Float
from torch import Tensor, nn

from diffusion_art.devices import computes_in_bf16
from diffusion_art.errors import UserError, first_line
from diffusion_art.files import newest_first
from diffusion_art.models.codec import Codec
from diffusion_art.models.weights_hash import see_weights

KINDS: dict[str, type[Any]] = {kind.__name__: kind for kind in (AutoencoderKL, AutoencoderTiny, AutoencoderDC)}
WIDTHS = ("block_out_channels", "encoder_block_out_channels")  # of the levels, whose sides are halved in between
PRECISIONS = ("fp32", "bf16", "auto")
PIXELS_AT_ONCE = 2**22  # encoded or decoded in one call: 16 pictures of 512 px
CONFIG = "config.json"
MENDS = (
    "Give the folder of one, model.codec.path=FOLDER, such as a run of +experiment=autoencoder; or its name on the hub "
    "where that can be reached, model.codec.path=stabilityai/sdxl-vae."
)


class Vae(nn.Module, Codec):
    """AutoencoderKL, AutoencoderTiny or AutoencoderDC, frozen.

    `path` is a folder that diffusers wrote, of a VAE or of a pipeline that has one in `vae/`, a run of
    `+experiment=autoencoder` or a folder of such runs (the newest), or a name on the hub, with its `subfolder` there.
    `scale` and `shift` replace those of its config. `precision` is what it computes in: fp32, bf16, or auto, which is
    bf16 where the device computes in it.

    It is no submodule: it follows the device, and optimisers, averages and `train()` never see it. A checkpoint holds
    the weights of one that lay in a folder. One of the hub it names, with a hash of the weights.

    Papers: Kingma & Welling 2014, https://arxiv.org/abs/1312.6114; Rombach et al. 2022 (latent diffusion),
    https://arxiv.org/abs/2112.10752; Chen et al. 2025 (DC-AE), https://arxiv.org/abs/2410.10733

    Raises:
        UserError: there is none at `path`, or one of another kind, or a precision that is not known.
    """

    bounded = False
    net: Any
    folder: Path | None  # where it lay on this machine; None: on the hub
    scale: Tensor  # c 1 1
    shift: Tensor

    def __init__(
        self,
        *,
        path: str,
        subfolder: str | None = None,
        scale: float | None = None,
        shift: float | None = None,
        precision: str = "fp32",
    ) -> None:
        super().__init__()
        if precision not in PRECISIONS:
            raise UserError(f"model.codec.precision={precision} is not one of {', '.join(PRECISIONS)}.")
        self.precision = precision
        self.folder = _folder(path, subfolder)
        self.origin = {"path": path, "subfolder": subfolder}
        self._take(_loaded(self.folder or path, None if self.folder else subfolder), scale, shift)

    @classmethod
    def of_checkpoint(cls, held: Mapping[str, Any], asked: Mapping[str, Any]) -> Vae:
        """The one that a checkpoint holds: `describe()` and `weights` in `held`. `asked` is its part of the config."""
        codec = cls.__new__(cls)
        nn.Module.__init__(codec)
        codec.precision = asked.get("precision", "fp32")
        codec.folder = Path(asked.get("path") or "")
        codec.origin = {}
        net = KINDS[held["kind"]].from_config(dict(held["settings"]))
        net.load_state_dict(held["weights"])
        codec._take(net, asked.get("scale"), asked.get("shift"))
        vars(codec).update(sha256=held["sha256"])  # an exported file may hold them in another precision
        return codec

    def _take(self, net: Any, scale: float | None, shift: float | None) -> None:
        object.__setattr__(self, "net", net.eval().requires_grad_(False))  # past nn.Module's registry
        self.channels = int(net.config["latent_channels"])
        self.factor = 2 ** (len(next(net.config[name] for name in WIDTHS if name in net.config)) - 1)
        per_channel = torch.ones(self.channels, 1, 1)
        config_scale, config_shift = _normalisation(net.config)
        self.register_buffer("scale", per_channel * (config_scale if scale is None else scale), persistent=False)
        self.register_buffer("shift", per_channel * (config_shift if shift is None else shift), persistent=False)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Vae:
        self.net._apply(fn, recurse)
        return super()._apply(fn, recurse)

    @torch.no_grad()
    def encode(self, images: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b c h2 w2"]:
        return (self._in_parts(self._means, images) - self.shift) * self.scale

    def decode(self, latents: Float[Tensor, "b c h2 w2"]) -> Float[Tensor, "b 3 h w"]:
        """Gradients pass into the latents."""
        z = latents.float() / self.scale + self.shift
        return self._in_parts(lambda part: self.net.decode(part).sample, z, factor=self.factor)

    def _means(self, images: Tensor) -> Tensor:
        found = self.net.encode(images)
        if hasattr(found, "latent_dist"):
            return found.latent_dist.mean
        return found.latents if hasattr(found, "latents") else found.latent

    def _in_parts(self, network: Callable[[Tensor], Tensor], x: Tensor, *, factor: int = 1) -> Tensor:
        """The network's answers in float32, asked for as many pictures at once as fit, outside autocast."""
        fast = self.precision == "bf16" or (self.precision == "auto" and computes_in_bf16(x.device))
        at_once = max(1, PIXELS_AT_ONCE // (x.shape[-1] * x.shape[-2] * factor**2))
        with torch.autocast(x.device.type, dtype=torch.bfloat16, enabled=fast):
            parts = [network(part.float()).float() for part in x.split(at_once)]
        return parts[0] if len(parts) == 1 else torch.cat(parts)

    @cached_property
    def sha256(self) -> str:
        """Of its config, scale and shift, and its weights, names and values."""
        told = [self._settings, self.scale.flatten().tolist(), self.shift.flatten().tolist()]
        digest = hashlib.sha256(json.dumps(told, sort_keys=True).encode())
        see_weights(digest, self.net)
        return digest.hexdigest()

    @property
    def _settings(self) -> dict[str, Any]:
        """Its config as plain data, without where it lay."""
        return json.loads(json.dumps({k: v for k, v in self.net.config.items() if not k.startswith("_")}))

    def describe(self) -> dict[str, Any]:
        kind = {"class": type(self).__name__, "kind": type(self.net).__name__, "settings": self._settings}
        return {**kind, **({} if self.folder else self.origin), "sha256": self.sha256}

    def kept(self) -> dict[str, Tensor]:
        return {name: weight.detach() for name, weight in self.net.state_dict().items()} if self.folder else {}


def _normalisation(config: Mapping[str, Any]) -> tuple[Tensor, Tensor]:
    """Scale and shift of a VAE's config, of each channel or of all alike: [c 1 1] or [1 1 1]."""
    scale, shift = config.get("scaling_factor"), config.get("shift_factor")
    mean, std = config.get("latents_mean"), config.get("latents_std")
    if mean is not None and std is not None:
        column = torch.tensor(std)[:, None, None]
        return (1.0 if scale is None else scale) / column, torch.tensor(mean)[:, None, None]
    return torch.full((1, 1, 1), 1.0 if scale is None else scale), torch.full((1, 1, 1), shift or 0.0)


def _folder(path: str, subfolder: str | None) -> Path | None:
    """The folder with the VAE's config that `path` means on this machine; None where it can only be a hub's name.

    Raises:
        UserError: there is nothing, or something else.
    """
    home = Path(path).expanduser()
    below = [home / subfolder] if subfolder else [home, home / "vae"]
    newest = newest_first(home.glob("*/vae"))
    found = next((folder for folder in [*below, *newest] if (folder / CONFIG).is_file()), None)
    if found is None and home.exists():
        raise UserError(f"model.codec.path={path} holds no VAE of diffusers: neither it nor its vae/ has a {CONFIG}.")
    if found is None and not re.fullmatch(r"[\w.-]+/[\w.-]+", path):
        raise UserError(f"there is no VAE at model.codec.path={path}. {MENDS}")
    return found


def _loaded(place: str | Path, subfolder: str | None) -> Any:
    """The VAE of a folder, or of a name on the hub. Weights are read from safetensors only."""
    where = {"subfolder": subfolder} if subfolder else {}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of arguments that diffusers gives the hub's library
        return _read(place, where)


def _read(place: str | Path, where: dict[str, Any]) -> Any:
    try:
        config: Any = AutoencoderKL.load_config(place, **where)
    except (OSError, ValueError) as error:
        reason = first_line(error) if isinstance(place, Path) else "no folder here, and no answer from the hub"
        raise UserError(f"the VAE of {place} cannot be had: {reason}. {MENDS}") from error
    if (kind := config.get("_class_name")) not in KINDS:
        raise UserError(f"{place} holds a {kind}, and a codec can be made of {', '.join(KINDS)}.")
    if config.get("in_channels", 3) != 3:
        raise UserError(f"the VAE of {place} takes in_channels={config['in_channels']}, and pictures have 3.")
    try:
        return KINDS[kind].from_pretrained(place, use_safetensors=True, low_cpu_mem_usage=False, **where)
    except Exception as error:  # diffusers, the hub and safetensors each raise their own
        raise UserError(f"the VAE of {place} cannot be loaded ({first_line(error)}). {MENDS}") from error
