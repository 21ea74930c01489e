"""EDM2's power-function averages: which weights they give to a run's past, and how to get any from a few.

Up to update t the average of width sigma_rel weighs the weights of update tau <= t by

    p_t(tau) = (gamma + 1) tau^gamma / t^(gamma + 1),   sigma_rel = sqrt(gamma + 1) / ((gamma + 2) sqrt(gamma + 3))

so its length is a share of the run, not a number of steps: sigma_rel is the standard deviation of p_t over t. The
update that tracks it, theta_hat <- d theta_hat + (1 - d) theta with d = (1 - 1 / t)^(gamma + 1), gives update k the
weight (k^(gamma + 1) - (k - 1)^(gamma + 1)) / t^(gamma + 1), which is p_t integrated over (k - 1, k]: what is said of
profiles below holds for the weights exactly.

Paper: Karras et al. 2024, Analyzing and Improving the Training Dynamics of Diffusion Models, section 3 and appendix C,
https://arxiv.org/abs/2312.02696
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float64
from torch import Tensor

from diffusion_art.errors import UserError

UNIFORM = 12**-0.5  # sigma_rel of the plain mean of all weights, gamma = 0: the widest there is


def gamma_of(sigma_rel: float) -> float:
    """The exponent of a width: the one root gamma >= 0 of (gamma + 2)^2 (gamma + 3) sigma_rel^2 = gamma + 1.

    Raises:
        UserError: no width, or wider than the mean of all weights.
    """
    if not 0.0 < sigma_rel <= UNIFORM:
        raise UserError(
            f"sigma_rel={sigma_rel:g} is no width of an average: it is above 0 (the last weights alone) and at most "
            f"{UNIFORM:.4f} (the mean of all); 0.05 to 0.15 are usual."
        )
    low, high = 0.0, 1.0 / sigma_rel  # sigma_rel falls with gamma from UNIFORM on, and stays below 1 / gamma
    for _ in range(100):
        middle = (low + high) / 2
        low, high = (middle, high) if sigma_rel_of(middle) > sigma_rel else (low, middle)
    return low


def sigma_rel_of(gamma: float) -> float:
    """The width of an exponent."""
    return (gamma + 1.0) ** 0.5 / ((gamma + 2.0) * (gamma + 3.0) ** 0.5)


def power_decay(gamma: float, update: int) -> float:
    """The decay of update 1, 2, ...; the first forgets what was there before."""
    return (1.0 - 1.0 / update) ** (gamma + 1.0)


@dataclass(frozen=True)
class Mixture:
    """How to add up snapshots: theta = sum of `shares` times snapshots, and how far its profile is off.

    `error` is the root mean square of the difference to the profile asked for, as a share of that profile's own.
    """

    shares: Float64[Tensor, " n"]
    error: float


def reconstruct(steps: Float64[Tensor, " n"], gammas: Float64[Tensor, " n"], *, step: float, gamma: float) -> Mixture:
    """The sum of the profiles (steps, gammas) that comes nearest to the profile (step, gamma), in the least squares.

    All integrals are in closed form: `overlap`. Unlike the paper's, the shares are held to add up to one, so that
    weights that never moved come back as they are; its networks norm their weights, and ours do not.
    """
    at, exponent = torch.full_like(steps, step), torch.full_like(gammas, gamma)
    norms = overlap(steps, gammas, steps, gammas).sqrt()
    sizes = overlap(at, exponent, at, exponent).sqrt() / norms
    gram = overlap(steps[:, None], gammas[:, None], steps, gammas) / (norms[:, None] * norms)
    wanted = overlap(steps, gammas, at, exponent) / (norms**2 * sizes)
    free, ones = torch.linalg.lstsq(gram, torch.stack([wanted, sizes], 1), driver="gelsd").solution.unbind(1)
    unit = free + ones * (1.0 - sizes @ free) / (sizes @ ones)
    missed = float(1.0 - 2.0 * unit @ wanted + unit @ gram @ unit)
    return Mixture(shares=unit * sizes, error=max(0.0, missed) ** 0.5)


def overlap(step: Tensor, gamma: Tensor, other_step: Tensor, other_gamma: Tensor) -> Tensor:
    """The integral of the product of two profiles, elementwise.

    With m the smaller and M the larger of the two steps s, s':
    (gamma + 1) (gamma' + 1) / (gamma + gamma' + 1) * (m / s)^gamma (m / s')^gamma' / M.
    """
    smaller, larger = torch.minimum(step, other_step), torch.maximum(step, other_step)
    scale = (gamma + 1.0) * (other_gamma + 1.0) / (gamma + other_gamma + 1.0)
    return scale * (smaller / step) ** gamma * (smaller / other_step) ** other_gamma / larger
