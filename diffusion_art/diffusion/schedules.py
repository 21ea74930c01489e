"""Noise schedules: diffusion time t -> (alpha, sigma), with x_t = alpha x_0 + sigma eps.

t = 0 is the clean image (alpha = 1, sigma = 0) and t = 1 the noisiest. Everything else follows from the
pair: log SNR = 2 log(alpha / sigma), which falls strictly from +inf. A schedule holds no weights, lives on
no device and answers in the dtype and on the device of the t it is asked about.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from diffusion_art.errors import UserError

LOG_SNR_FLOOR = -15.0  # Simple Diffusion's logsnr_min: where a cosine without zero terminal SNR ends


class Schedule(ABC):
    """t -> (alpha, sigma). Subclasses give the pair, its inverse and the slope of log SNR."""

    variance_preserving: bool = True  # alpha^2 + sigma^2 = 1

    @abstractmethod
    def alpha_sigma(self, t: Float[Tensor, " *shape"]) -> tuple[Float[Tensor, " *shape"], Float[Tensor, " *shape"]]:
        """Signal and noise scale at t in [0, 1]."""

    @abstractmethod
    def t_of_log_snr(self, log_snr: Float[Tensor, " *shape"]) -> Float[Tensor, " *shape"]:
        """The time at which log SNR has this value; values past either end give 0 or 1."""

    @abstractmethod
    def log_snr_slope(self, t: Float[Tensor, " *shape"]) -> Float[Tensor, " *shape"]:
        """d log_snr / dt, negative, for t in (0, 1)."""

    def log_snr(self, t: Float[Tensor, " *shape"]) -> Float[Tensor, " *shape"]:
        """2 log(alpha / sigma): +inf at t = 0, and -inf at t = 1 under zero terminal SNR."""
        alpha, sigma = self.alpha_sigma(t)
        return 2 * (alpha.log() - sigma.log())

    def resized(self, ratio: float) -> Schedule:
        """The schedule at which images `ratio` times as large lose as much at each t: log SNR less 2 log(ratio).

        The mean over a block of ratio^2 pixels has the noise of one pixel over ratio. This one, where it has no shift.
        """
        return self

    @property
    def zero_terminal_snr(self) -> bool:
        """Whether nothing of the image is left at t = 1 (alpha is exactly 0)."""
        alpha, _ = self.alpha_sigma(torch.ones(1, dtype=torch.float64))
        return alpha.item() == 0.0


class CosineSchedule(Schedule):
    """Variance-preserving cosine schedule, shifted for image size.

    alpha : sigma = cos(phi) : shift sin(phi), phi = t pi / 2, normalised to alpha^2 + sigma^2 = 1. Larger
    images keep more visible signal at equal noise, so log SNR moves by -2 log(shift), shift = height / 64.
    Terminal SNR is zero; without it, phi stops where the unshifted log SNR reaches -15, as in the paper.

    Paper: Hoogeboom et al. 2023, Simple Diffusion, https://arxiv.org/abs/2301.11093
    """

    def __init__(self, *, shift: float = 1.0, zero_terminal_snr: bool = True) -> None:
        self.shift = _positive(shift)
        # pi/2 - phi(1): the angle that is left at t = 1
        self._rest = 0.0 if zero_terminal_snr else math.atan(math.exp(LOG_SNR_FLOOR / 2))
        self._phi_max = math.pi / 2 - self._rest

    def resized(self, ratio: float) -> CosineSchedule:
        return CosineSchedule(shift=self.shift * ratio, zero_terminal_snr=self._rest == 0.0)

    def __repr__(self) -> str:
        return f"CosineSchedule(shift={self.shift}, zero_terminal_snr={self.zero_terminal_snr})"

    def alpha_sigma(self, t: Tensor) -> tuple[Tensor, Tensor]:
        # cos(phi) as a sine of the complement, so that it is exactly 0, not -4e-8, at a zero-SNR end
        signal = torch.sin(self._phi_max * (1 - t) + self._rest)
        noise = self.shift * torch.sin(self._phi_max * t)
        norm = torch.hypot(signal, noise)
        return signal / norm, noise / norm

    def t_of_log_snr(self, log_snr: Tensor) -> Tensor:
        return (torch.atan(torch.exp(-log_snr / 2) / self.shift) / self._phi_max).clamp(max=1)

    def log_snr_slope(self, t: Tensor) -> Tensor:
        return -4 * self._phi_max / torch.sin(2 * self._phi_max * t)


@dataclass(frozen=True)
class Flow(Schedule):
    """The straight path of flow matching: alpha = 1 - u, sigma = u, with u = shift t / (1 + (shift - 1) t).

    shift = 1 is u = t. A larger one spends more of t at high noise, for larger images: log SNR moves by
    -2 log(shift), as for `CosineSchedule`. Terminal SNR is zero; not variance preserving.

    Papers: Lipman et al. 2022, https://arxiv.org/abs/2210.02747; the shift: Esser et al. 2024 (SD3), Eq. 23,
    https://arxiv.org/abs/2403.03206
    """

    shift: float = 1.0
    variance_preserving = False

    def __post_init__(self) -> None:
        _positive(self.shift)

    def resized(self, ratio: float) -> Flow:
        return Flow(shift=self.shift * ratio)

    def alpha_sigma(self, t: Tensor) -> tuple[Tensor, Tensor]:
        norm = 1 + (self.shift - 1) * t
        return (1 - t) / norm, self.shift * t / norm

    def t_of_log_snr(self, log_snr: Tensor) -> Tensor:
        return torch.sigmoid(-log_snr / 2 - math.log(self.shift))

    def log_snr_slope(self, t: Tensor) -> Tensor:
        return -2 / (t * (1 - t))


class DiscreteSchedule(Schedule):
    """A DDPM schedule given by its betas, made continuous. Variance preserving.

    Integer timestep k of N (diffusers' 0 ... N - 1) is our t = (k + 1) / N, where the pair equals
    sqrt(alphas_cumprod[k]), sqrt(1 - alphas_cumprod[k]); t = 0 is the clean image. Between two knots the pair
    moves along the chord, scaled back to the unit circle, which keeps log SNR strictly falling.

    Zero terminal SNR shifts and scales sqrt(alphas_cumprod) so that the last one is 0 and the first one stays
    (Lin et al. 2023, Algorithm 1, https://arxiv.org/abs/2305.08891).
    """

    def __init__(self, betas: Float[Tensor, " n"], *, zero_terminal_snr: bool = False) -> None:
        alpha = torch.cumprod(1 - betas.double(), 0).sqrt()
        if zero_terminal_snr:
            alpha = (alpha - alpha[-1]) * (alpha[0] / (alpha[0] - alpha[-1]))
        sigma = (1 - alpha**2).sqrt()
        self._knots = torch.stack(
            [torch.cat([alpha.new_ones(1), alpha]), torch.cat([sigma.new_zeros(1), sigma])]
        )  # 2 n+1
        self._cast_knots: dict[tuple[torch.device, torch.dtype], Tensor] = {}

    @property
    def num_train_timesteps(self) -> int:
        return self._knots.shape[1] - 1

    def __repr__(self) -> str:
        return (
            f"{type(self).__name__}(num_train_timesteps={self.num_train_timesteps}, "
            f"zero_terminal_snr={self.zero_terminal_snr})"
        )

    def alpha_sigma(self, t: Tensor) -> tuple[Tensor, Tensor]:
        (alpha_0, sigma_0), (alpha_1, sigma_1), weight = self._chord(t)
        alpha = torch.lerp(alpha_0, alpha_1, weight)
        sigma = torch.lerp(sigma_0, sigma_1, weight)
        norm = torch.hypot(alpha, sigma)
        return alpha / norm, sigma / norm

    def t_of_log_snr(self, log_snr: Tensor) -> Tensor:
        knots = self._table(log_snr)
        falling = 2 * (knots[1].log() - knots[0].log())  # -log SNR of the knots, rising from -inf
        right = torch.searchsorted(falling, (-log_snr).contiguous()).clamp(1, self.num_train_timesteps)
        (alpha_0, sigma_0), (alpha_1, sigma_1) = knots[:, right - 1], knots[:, right]
        # where the ray of this SNR cuts the chord: areas to either side of it
        alpha, sigma = torch.sigmoid(log_snr).sqrt(), torch.sigmoid(-log_snr).sqrt()
        left_area = sigma * alpha_0 - alpha * sigma_0
        right_area = alpha * sigma_1 - sigma * alpha_1
        weight = (left_area / (left_area + right_area)).clamp(0, 1)
        return (right - 1 + weight) / self.num_train_timesteps

    def log_snr_slope(self, t: Tensor) -> Tensor:
        (alpha_0, sigma_0), (alpha_1, sigma_1), weight = self._chord(t)
        alpha = torch.lerp(alpha_0, alpha_1, weight)
        sigma = torch.lerp(sigma_0, sigma_1, weight)
        return 2 * self.num_train_timesteps * ((alpha_1 - alpha_0) / alpha - (sigma_1 - sigma_0) / sigma)

    def _chord(self, t: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """The two knots around t, each (alpha, sigma), and how far t has gone from the left one."""
        place = t * self.num_train_timesteps
        left = place.floor().clamp(0, self.num_train_timesteps - 1)
        knots, index = self._table(t), left.long()
        return knots[:, index], knots[:, index + 1], place - left

    def _table(self, like: Tensor) -> Tensor:
        key = (like.device, like.dtype)
        if key not in self._cast_knots:
            self._cast_knots[key] = self._knots.to(dtype=like.dtype).to(like.device)
        return self._cast_knots[key]


class SquaredCosCapV2(DiscreteSchedule):
    """iDDPM's cosine: alphas_cumprod follows cos^2((t + 0.008) / 1.008 pi / 2), each beta capped at 0.999.

    The schedule that diffusers calls `squaredcos_cap_v2`.

    Paper: Nichol & Dhariwal 2021, Eq. 17, https://arxiv.org/abs/2102.09672
    """

    def __init__(self, *, num_train_timesteps: int = 1000, zero_terminal_snr: bool = False) -> None:
        knots = torch.linspace(0, 1, _at_least_two(num_train_timesteps) + 1, dtype=torch.float64)
        alpha_bar = torch.cos((knots + 0.008) / 1.008 * math.pi / 2) ** 2
        betas = (1 - alpha_bar[1:] / alpha_bar[:-1]).clamp(max=0.999)
        super().__init__(betas, zero_terminal_snr=zero_terminal_snr)


class LinearBeta(DiscreteSchedule):
    """DDPM's own: beta rises linearly, 1e-4 to 0.02 over 1000 timesteps.

    Terminal SNR is 4e-5, small but not zero: sampling from unit noise then starts slightly off the training
    distribution, which `zero_terminal_snr` repairs.

    Paper: Ho et al. 2020, https://arxiv.org/abs/2006.11239
    """

    def __init__(
        self,
        *,
        num_train_timesteps: int = 1000,
        beta_start: float = 1e-4,
        beta_end: float = 0.02,
        zero_terminal_snr: bool = False,
    ) -> None:
        if not 0 < beta_start <= beta_end < 1:
            raise UserError(
                f"betas must satisfy 0 < beta_start <= beta_end < 1, not {beta_start} and {beta_end}; "
                "DDPM uses model.schedule.beta_start=1e-4 model.schedule.beta_end=0.02"
            )
        betas = torch.linspace(beta_start, beta_end, _at_least_two(num_train_timesteps), dtype=torch.float64)
        super().__init__(betas, zero_terminal_snr=zero_terminal_snr)


def _positive(shift: float) -> float:
    if not (math.isfinite(shift) and shift > 0):
        raise UserError(f"schedule shift must be a positive number, not {shift}; 1.0 is no shift")
    return shift


def _at_least_two(num_train_timesteps: int) -> int:
    if num_train_timesteps < 2:
        raise UserError(f"num_train_timesteps must be at least 2, not {num_train_timesteps}; 1000 is usual")
    return num_train_timesteps
