"""What an autoencoder's pictures are judged by.

loss_i = mean |x_hat_i - x_i| + kl_weight mean KL(N(mean_i, var_i) || N(0, 1))
"""

from __future__ import annotations

from jaxtyping import Float
from torch import Tensor

from diffusion_art.errors import UserError


class Reconstruction:
    """The mean absolute difference of pixels, and a light pull of latents to unit noise, of each picture.

    A `kl_weight` near 1e-4 keeps latents from growing without limit; a larger one blurs pictures.

    Papers: Kingma & Welling 2014, Eq. 10, https://arxiv.org/abs/1312.6114; Rombach et al. 2022, Sec. 3.1,
    https://arxiv.org/abs/2112.10752
    """

    def __init__(self, *, kl_weight: float = 1e-4) -> None:
        if not kl_weight >= 0:
            raise UserError(f"objective.kl_weight={kl_weight} must be 0 or more; 1e-4 is usual.")
        self.kl_weight = kl_weight

    def __call__(
        self,
        decoded: Float[Tensor, "b 3 h w"],
        images: Float[Tensor, "b 3 h w"],
        *,
        mean: Float[Tensor, "b c h2 w2"],
        logvar: Float[Tensor, "b c h2 w2"],
    ) -> Float[Tensor, " b"]:
        kl = (mean.square() + logvar.exp() - 1 - logvar).flatten(1).mean(1) / 2
        return (decoded - images).abs().flatten(1).mean(1) + self.kl_weight * kl
