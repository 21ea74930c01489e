"""One training step of an autoencoder: pictures -> the loss of each picture and of each term.

    z    = mean + std eps                                the latents, drawn from their posterior
    loss = mean_i (|x_hat_i - x_i| + kl_weight KL_i) + sum_k weight_k term_k

The noise of a picture belongs to its position in the endless order, so a resumed run draws the same.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import cast

import torch
from jaxtyping import Float
from torch import Tensor

from diffusion_art.data.precomputed import on_device
from diffusion_art.diffusion.objective import Reconstruction
from diffusion_art.models.autoencoder import Autoencoder
from diffusion_art.tensors import Batch
from diffusion_art.training.noise import POSTERIOR, noise_at
from diffusion_art.training.step import Losses
from diffusion_art.training.terms.term import Seen, Term, by_name
from diffusion_art.training.weights_alone import WeightsAlone


@dataclass
class Encoded:
    """Pictures, the noise of their latents, and their times, which are 0: no noise is on them."""

    images: Float[Tensor, "b 3 h w"]
    eps: Float[Tensor, "b c h2 w2"]
    t: Float[Tensor, " b"]


class AutoencoderStep(WeightsAlone):
    """The losses of an `Autoencoder` on batches of pictures; captions are not read.

    `terms` see a decoded picture as x_0_hat at t = 0.

    Raises:
        UserError: two terms of one name.
    """

    def __init__(
        self, model: Autoencoder, objective: Reconstruction, *, terms: Iterable[Term] = (), seed: int = 0
    ) -> None:
        super().__init__()
        self.model = model
        self.objective = objective
        self.terms = by_name(terms)
        self.seed = seed

    def drawn(self, batch: Batch, *, global_batch_size: int, parts: int = 1) -> Encoded:
        """A batch with the noise of its positions."""
        images = on_device(batch).images
        shape = self.model.latent_shape(images)
        eps = noise_at(batch.positions, shape, seed=self.seed, stream=POSTERIOR, device=images.device)
        return Encoded(images, eps, torch.zeros(len(batch), device=images.device))

    def validated(self, batch: Batch) -> Encoded:
        """A batch without noise: latents are the means of their posteriors, as a codec gives them."""
        images = on_device(batch).images
        eps = torch.zeros(len(batch), *self.model.latent_shape(images), device=images.device)
        return Encoded(images, eps, torch.zeros(len(batch), device=images.device))

    def forward(self, example: Encoded, *, step: int | None = None, every_weight: bool = False) -> Losses:
        """`step` is how many optimiser updates went before; without one, no term adds its loss."""
        mean, logvar = self.model.encode(example.images)
        decoded = self.model.decode(mean + (logvar / 2).exp() * example.eps)
        per_picture = self.objective(decoded, example.images, mean=mean, logvar=logvar)
        seen = Seen(example.images, example.t, lambda: decoded, None)
        terms = cast(list[Term], list(self.terms.values()))
        return Losses.of(per_picture, terms, seen, step=step, every_weight=every_weight)
