"""One training step of models that are their trained weights and nothing else: an autoencoder, a CLIP.

Of an autoencoder: pictures -> the loss of each picture and of each term.

    z    = mean + std eps                                the latents, drawn from their posterior
    loss = mean_i (|x_hat_i - x_i| + kl_weight KL_i) + sum_k weight_k term_k

The noise of a picture belongs to its position in the endless order, so a resumed run draws the same.

Of a CLIP: pictures and their captions -> the loss of the batch. A global batch is judged at once, whatever the number
of processes. In parts (`accumulate_grad_batches`) a picture meets the captions of its own part alone.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, cast

import torch
from jaxtyping import Float
from torch import Tensor, nn

from diffusion_art.data.transforms import on_device
from diffusion_art.diffusion.objective import Reconstruction
from diffusion_art.models.autoencoder import Autoencoder
from diffusion_art.models.clip_to_train import Contrastive, TrainableClip
from diffusion_art.record import Record
from diffusion_art.tensors import Batch
from diffusion_art.training.noise import POSTERIOR, noise_at
from diffusion_art.training.step import Losses, TrainingStep, states_in
from diffusion_art.training.terms.term import Seen, Term, by_name, go_on, states_of


class WeightsAlone(nn.Module):
    """What a step of such a model has to say of checkpoints where its loss has no terms: nothing."""

    def frozen(self) -> dict[str, Any]:
        """It has no frozen parts."""
        return {}

    def check(self, record: Record) -> None:
        """Nothing in it has to be the same elsewhere."""

    def saved(self) -> dict[str, Any]:
        return {}

    def resume(self, ours: Mapping[str, Any]) -> None:
        """It has no state besides its weights."""


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
        return Losses.of(per_picture, self._terms(), seen, step=step, every_weight=every_weight)

    def saved(self) -> dict[str, Any]:
        return {"terms": states_of(self._terms())}

    def resume(self, ours: Mapping[str, Any]) -> None:
        """Give each term what it saved. UserError where the terms are others."""
        go_on(self._terms(), states_in(ours))

    def _terms(self) -> list[Term]:
        return cast(list[Term], list(self.terms.values()))


@dataclass
class Pairs:
    """Pictures with their captions, and their times, which are 0: no noise is on them."""

    images: Float[Tensor, "b 3 h w"]
    captions: list[str]
    t: Float[Tensor, " b"]


class ClipStep(WeightsAlone):
    """The losses of a `TrainableClip` on batches of pictures and captions."""

    def __init__(self, model: TrainableClip, objective: Contrastive) -> None:
        super().__init__()
        self.model = model
        self.objective = objective

    def drawn(self, batch: Batch, *, global_batch_size: int, parts: int = 1) -> Pairs:
        """Nothing is random."""
        return self.validated(batch)

    def validated(self, batch: Batch) -> Pairs:
        batch = on_device(batch)
        return Pairs(batch.images, batch.captions, torch.zeros(len(batch), device=batch.images.device))

    def forward(self, example: Pairs, *, step: int | None = None, every_weight: bool = False) -> Losses:
        """The loss of the batch, at each of its pictures alike. Without a `step`, that of this process's part."""
        model = self.model
        images, captions = model.images(example.images), model.captions(example.captions)
        loss = self.objective(images, captions, model.scale, gather=step is not None)
        return Losses(loss.expand(len(images)), {})


AnyStep = TrainingStep | AutoencoderStep | ClipStep
