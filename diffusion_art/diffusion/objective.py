"""The training loss: which times it looks at, and one number per image.

    loss_i = w(t_i) mean_chw |out_i - target_i|^2,   out = backbone(x_t, t),   t ~ times

(the backbone is shown what `Prediction.inputs` makes of the pair).

`Times` are a density on (0, 1). Every class draws `count` times for a whole global batch at once, from a given
generator and on its device, so that the draw depends on (seed, step) and on nothing else. The stratified ones put one
time into each of `count` slices of equal probability, in random order: the same density for each image, far less
variance of the batch's loss.

A weighting by SNR is stated once, as the weight of the squared error in x_0, and carried into the
prediction's own space by the square of `x0_error_scale`. So it asks for the same thing whether the network
outputs epsilon, v, x_0 or flow; only `NoWeighting` leaves the choice to the prediction.

An autoencoder's pictures are judged by `Reconstruction`.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from typing import cast

import torch
from einops import reduce
from jaxtyping import Float
from torch import Generator, Tensor

from diffusion_art.diffusion.denoiser import Backbone, Prediction, image_scales
from diffusion_art.diffusion.schedules import Schedule
from diffusion_art.errors import UserError

MARGIN = 1e-5  # times stay this far from 0 and 1, where a weight or a slope may be infinite


class Weighting(ABC):
    """The weight of an image's loss, by its time."""

    @abstractmethod
    def __call__(self, t: Float[Tensor, " b"], *, schedule: Schedule, prediction: Prediction) -> Float[Tensor, " b"]:
        """What to multiply the squared error of the backbone's own output by."""


class NoWeighting(Weighting):
    """Weight 1 in the prediction's own space: on the x_0 error that is SNR for epsilon, SNR + 1 for v."""

    def __call__(self, t: Tensor, *, schedule: Schedule, prediction: Prediction) -> Tensor:
        return torch.ones_like(t)


class X0Weighting(Weighting):
    """A weighting stated on the x_0 error, the same one for every prediction."""

    @abstractmethod
    def x0_weight(self, t: Float[Tensor, " b"], *, schedule: Schedule) -> Float[Tensor, " b"]:
        """The weight of the squared error in x_0, for t in (0, 1)."""

    def __call__(self, t: Tensor, *, schedule: Schedule, prediction: Prediction) -> Tensor:
        alpha, sigma = schedule.alpha_sigma(t)
        return self.x0_weight(t, schedule=schedule) * prediction.x0_error_scale(alpha, sigma) ** 2


class MinSNR(X0Weighting):
    """x_0 weight min(SNR, gamma): epsilon's weight, but easy, nearly clean images no longer dominate.

    Multiplies an x0 loss by min(SNR, gamma), an epsilon loss by that over SNR, a v loss by that over SNR + 1.

    Paper: Hang et al. 2023, https://arxiv.org/abs/2303.09556
    """

    def __init__(self, *, gamma: float = 5.0) -> None:
        if not gamma > 0:
            raise UserError(f"min-SNR gamma must be positive, not {gamma}; the paper uses 5")
        self.gamma = gamma

    def x0_weight(self, t: Tensor, *, schedule: Schedule) -> Tensor:
        return schedule.log_snr(t).clamp(max=math.log(self.gamma)).exp()


class FlowLoss(X0Weighting):
    """x_0 weight 1 / max(u, floor)^2, u = sigma / (alpha + sigma): the flow error, whatever the network outputs.

    (x_0_hat - x_0) / u is the error of the velocity eps - x_0. Near the clean end, u < floor, it would grow without
    bound, so it is held there. With the prediction `x0` this is how JiT trains: the network outputs the image, the
    loss is flow matching's.

    Paper: Li & He 2025 (JiT), section 4.3, https://arxiv.org/abs/2511.13720
    """

    def __init__(self, *, floor: float = 0.05) -> None:
        if not 0 < floor < 1:
            raise UserError(f"the floor of the flow loss must lie in (0, 1), not {floor}; JiT uses 0.05")
        self.floor = floor

    def x0_weight(self, t: Tensor, *, schedule: Schedule) -> Tensor:
        alpha, sigma = schedule.alpha_sigma(t)
        return (sigma / (alpha + sigma)).clamp(min=self.floor) ** -2


class Sigmoid(X0Weighting):
    """sigmoid(bias - log SNR) on the epsilon error, per unit of log SNR: the ELBO minus fine detail.

    On the x_0 error that is e^bias sigmoid(log SNR - bias); the factor -d log_snr / dt makes uniform t
    uniform in log SNR. Pair it with `Stratified` times: it already is a bell over t, so `LogitNormal` would
    count the middle twice. A lower bias spends more on coarse structure.

    Papers: Kingma & Gao 2023, https://arxiv.org/abs/2303.00848; Hoogeboom et al. 2024 (SiD2), section 3.1,
    https://arxiv.org/abs/2410.19324
    """

    def __init__(self, *, bias: float = 0.0) -> None:
        self.bias = bias

    def x0_weight(self, t: Tensor, *, schedule: Schedule) -> Tensor:
        weight = math.exp(self.bias) * torch.sigmoid(schedule.log_snr(t) - self.bias)
        return -schedule.log_snr_slope(t) * weight


class Objective:
    """Times and weighting: what training minimises, one loss per image.

    Draw `t = objective.times(global_batch_size, generator=...)` for the whole global batch and slice it by
    rank, so that the loss does not depend on the world size.
    """

    def __init__(self, *, times: Times, weighting: Weighting) -> None:
        self.times = times
        self.weighting = weighting

    def __call__(
        self,
        backbone: Backbone,
        *,
        schedule: Schedule,
        prediction: Prediction,
        x_0: Float[Tensor, "b c h w"],
        eps: Float[Tensor, "b c h w"],
        t: Float[Tensor, " b"],
    ) -> Float[Tensor, " b"]:
        """Weighted mean squared error over c h w, in float32 whatever the backbone's dtype."""
        alpha, sigma = image_scales(schedule, t)
        x_t = alpha * x_0 + sigma * eps
        out = backbone(*prediction.inputs(x_t, t, alpha, sigma))
        error = out.float() - prediction.target(x_0, eps, alpha, sigma).float()
        mse = cast(Tensor, reduce(error**2, "b c h w -> b", "mean"))
        return self.weighting(t, schedule=schedule, prediction=prediction) * mse


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


# ---------------------------------------------------------------------- times


def resolution_shift(t: Float[Tensor, " b"], *, shift: float) -> Float[Tensor, " b"]:
    """Move times towards noise for larger images: shift t / (1 + (shift - 1) t), shift = 1 moves nothing.

    Use it when the schedule itself is not shifted. Paper: Esser et al. 2024 (SD3), Eq. 23,
    https://arxiv.org/abs/2403.03206
    """
    return shift * t / (1 + (shift - 1) * t)


class Times(ABC):
    """A density of training times, drawn through uniform numbers."""

    def __init__(self, *, stratified: bool, shift: float) -> None:
        if not (math.isfinite(shift) and shift > 0):
            raise UserError(f"times shift must be a positive number, not {shift}; 1.0 is no shift")
        self.stratified = stratified
        self.shift = shift

    @abstractmethod
    def quantile(self, u: Float[Tensor, " b"], schedule: Schedule | None) -> Float[Tensor, " b"]:
        """The time below which a share u of the density lies, before the resolution shift."""

    def __call__(self, count: int, *, generator: Generator, schedule: Schedule | None = None) -> Float[Tensor, " b"]:
        """`count` times in (0, 1), float32, on the generator's device; a density in sigma needs the `schedule`."""
        device = generator.device
        u = torch.rand(count, generator=generator, device=device)
        if self.stratified:
            u = (torch.randperm(count, generator=generator, device=device) + u) / count
        t = resolution_shift(self.quantile(u.clamp(MARGIN, 1 - MARGIN), schedule), shift=self.shift)
        return t.clamp(MARGIN, 1 - MARGIN)


class Uniform(Times):
    """Independent uniform times."""

    def __init__(self, *, shift: float = 1.0) -> None:
        super().__init__(stratified=False, shift=shift)

    def quantile(self, u: Tensor, schedule: Schedule | None) -> Tensor:
        return u


class Stratified(Times):
    """Uniform times, one in each of `count` equal slices of [0, 1].

    Paper: Kingma et al. 2021 (VDM), appendix I.1, https://arxiv.org/abs/2107.00630
    """

    def __init__(self, *, shift: float = 1.0) -> None:
        super().__init__(stratified=True, shift=shift)

    def quantile(self, u: Tensor, schedule: Schedule | None) -> Tensor:
        return u


class LogitNormal(Times):
    """logit(t) ~ N(mean, std^2): the middle times, where learning is hardest, come most often.

    A larger mean looks at noisier images. Paper: Esser et al. 2024 (SD3), section 3.1,
    https://arxiv.org/abs/2403.03206
    """

    def __init__(self, *, mean: float = 0.0, std: float = 1.0, stratified: bool = True, shift: float = 1.0) -> None:
        super().__init__(stratified=stratified, shift=shift)
        self.mean, self.std = mean, _spread(std, usual="SD3 uses objective.times.std=1.0")

    def quantile(self, u: Tensor, schedule: Schedule | None) -> Tensor:
        return torch.sigmoid(self.mean + self.std * torch.special.ndtri(u))


class LogNormal(Times):
    """ln(sigma / alpha) ~ N(mean, std^2), EDM's noise levels, whatever the schedule; its P_mean and P_std.

    On the straight path t is the share of noise, and this is `LogitNormal`. EDM takes (-1.2, 1.2), EDM2 at 64 px
    (-0.8, 1.6). Paper: Karras et al. 2022, Table 1, https://arxiv.org/abs/2206.00364
    """

    def __init__(self, *, mean: float = -1.2, std: float = 1.2, stratified: bool = True) -> None:
        super().__init__(stratified=stratified, shift=1.0)
        self.mean, self.std = mean, _spread(std, usual="EDM uses objective.times.std=1.2")

    def quantile(self, u: Tensor, schedule: Schedule | None) -> Tensor:
        if schedule is None:
            raise ValueError("LogNormal times are drawn by their noise level: give them the schedule")
        return schedule.t_of_log_snr(-2 * (self.mean + self.std * torch.special.ndtri(u)))


def _spread(std: float, *, usual: str) -> float:
    if not std > 0:
        raise UserError(f"times std must be positive, not {std}; {usual}")
    return std


class Stops(Times):
    """Where a sampler of `num_steps` = n steps even in t calls its network: k / n for k = 1 ... n, equally often.

    For networks that will only ever be asked about these, as a few-step student. Samplers whose number of steps
    divides n stop at some of them.
    """

    def __init__(self, *, num_steps: int) -> None:
        super().__init__(stratified=True, shift=1.0)
        if num_steps < 1:
            raise UserError(f"times num_steps must be at least 1, not {num_steps}; a student of 4 steps takes 4")
        self.num_steps = num_steps

    def quantile(self, u: Tensor, schedule: Schedule | None) -> Tensor:
        return ((u * self.num_steps).floor() + 1) / self.num_steps
