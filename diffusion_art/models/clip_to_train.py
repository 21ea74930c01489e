"""A CLIP to train: pictures and captions -> vectors in one space. Its folder is one of open_clip's.

They are judged by open_clip's loss, (CE(s x y^T, i) + CE(s y x^T, i)) / 2: x and y are unit vectors of pictures and
captions, s is the scale, i a row's own.
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from diffusion_art.errors import UserError
from diffusion_art.files import save_tensors
from diffusion_art.models.tokenizer import ClipTokenizer
from diffusion_art.models.trainable import Trainable
from diffusion_art.tensors import sent

CONFIG, WEIGHTS = "open_clip_config.json", "open_clip_model.safetensors"  # open_clip's names
MOST_SCALE = 100.0  # Radford et al. 2021, Sec. 2.5
PIXELS = {"mean": [0.5] * 3, "std": [0.5] * 3, "interpolation": "bicubic"}  # [0, 1] to the [-1, 1] of our pictures


class TrainableClip(Trainable):
    """open_clip's CLIP of a vision transformer and a text transformer, both small; captions are read by CLIP's tokens.

    Paper: Radford et al. 2021, https://arxiv.org/abs/2103.00020

    Raises:
        UserError: pictures that patches do not divide, or a width that heads do not.
    """

    called, use = "a CLIP", "its folder clip/ is one for model/text_encoder, alignment and evaluate (docs/encoders.md)"
    outer = ("net.visual.conv1", "net.visual.positional_embedding", "net.text.token_embedding")
    outer += ("net.text.positional_embedding", "net.visual.proj", "net.text.text_projection")  # for AdamW, not Muon

    def __init__(
        self,
        *,
        image_size_px: int,
        dim: int = 128,
        patch_size_px: int = 8,
        image_width: int = 192,
        image_layers: int = 4,
        text_width: int = 192,
        text_layers: int = 2,
        head_channels: int = 32,
        context_length: int = 64,
    ) -> None:
        super().__init__()
        from open_clip.model import CustomTextCLIP  # open_clip takes three seconds to import

        if image_size_px % patch_size_px:
            raise UserError(
                f"pictures of {image_size_px} px are no multiple of model.patch_size_px={patch_size_px}: give another "
                "of the two."
            )
        for name, width in (("image_width", image_width), ("text_width", text_width)):
            if width % head_channels:
                raise UserError(f"model.{name}={width} is no multiple of model.head_channels={head_channels}.")
        self.image_size_px = image_size_px
        self.tokenizer = ClipTokenizer(context_length=context_length)
        self.settings: dict[str, Any] = {
            "embed_dim": dim,
            "vision_cfg": {
                "image_size": image_size_px,
                "patch_size": patch_size_px,
                "width": image_width,
                "layers": image_layers,
                "head_width": head_channels,
            },
            "text_cfg": {
                "context_length": context_length,
                "vocab_size": self.tokenizer.vocab_size,
                "width": text_width,
                "layers": text_layers,
                "heads": text_width // head_channels,
            },
        }
        self.net: Any = CustomTextCLIP(**self.settings)

    @property
    def device(self) -> torch.device:
        return next(self.parameters()).device

    def check_size(self, image_size_px: int) -> None:
        """UserError for pictures of another size: each place in them has weights of its own."""
        if image_size_px != self.image_size_px:
            raise UserError(
                f"a CLIP for pictures of {self.image_size_px} px cannot see those of {image_size_px} px: train it with "
                "curriculum=none."
            )

    def images(self, images: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b d"]:
        """Of pictures in [-1, 1]; vectors of length 1, in float32."""
        return F.normalize(self.net.encode_image(images).float(), dim=-1)

    def captions(self, captions: Sequence[str]) -> Float[Tensor, "b d"]:
        """Of captions, each cut to the context; vectors of length 1, in float32."""
        tokenizer = self.tokenizer
        rows = [tokenizer.ids(caption) for caption in captions]
        ids = torch.tensor([row + [tokenizer.pad_id] * (tokenizer.context_length - len(row)) for row in rows])
        return F.normalize(self.net.encode_text(sent(ids, self.device)).float(), dim=-1)

    @property
    def scale(self) -> Float[Tensor, ""]:
        """What cosines are multiplied with: trained, and at most 100."""
        return self.net.logit_scale.clamp(max=math.log(MOST_SCALE)).exp()

    def write(self, folder: Path) -> None:
        """A folder that open_clip reads as `local-dir:FOLDER`."""
        about = {"model_cfg": {**self.settings, "custom_text": True}, "preprocess_cfg": PIXELS}
        (folder / CONFIG).write_text(json.dumps(about, indent=2) + "\n")
        save_tensors(folder / WEIGHTS, self.net.state_dict(), metadata={"format": "pt"})


class Contrastive:
    """A picture is to be nearer to its own caption than to those of all others of the batch, and a caption likewise.

    With several processes the batch is that of all of them: vectors are gathered with their gradients, and each process
    judges its own rows against all, so that the mean of their losses and gradients is that of one process.

    Papers: Radford et al. 2021, https://arxiv.org/abs/2103.00020; Ilharco et al. 2021, OpenCLIP,
    https://doi.org/10.5281/zenodo.5143773
    """

    def __call__(
        self,
        images: Float[Tensor, "b d"],
        captions: Float[Tensor, "b d"],
        scale: Float[Tensor, ""],
        *,
        gather: bool = True,
    ) -> Float[Tensor, ""]:
        """Without `gather` the batch is this process's."""
        from open_clip.loss import ClipLoss  # open_clip takes three seconds to import

        world = dist.get_world_size() if gather and dist.is_available() and dist.is_initialized() else 1
        rank = dist.get_rank() if world > 1 else 0
        loss = ClipLoss(local_loss=world > 1, gather_with_grad=world > 1, rank=rank, world_size=world)
        with torch.autocast(images.device.type, enabled=False):
            return loss(images.float(), captions.float(), scale.float())
