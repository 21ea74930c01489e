"""What a CLIP's pictures and captions are judged by: open_clip's loss.

loss = (CE(s x y^T, i) + CE(s y x^T, i)) / 2,    x, y unit vectors of pictures and captions, s the scale, i a row's own
"""

from __future__ import annotations

import torch
import torch.distributed as dist
from jaxtyping import Float
from torch import Tensor


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
