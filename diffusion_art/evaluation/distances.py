"""Distances between two sets of pictures, seen through a feature network: how far the made are from the real.

Both grow with every difference that the features show, in quality and in variety alike.

    FD   |mu_r - mu_f|^2 + tr(S_r + S_f - 2 (S_r S_f)^(1/2))      between the two Gaussians of equal moments
    KID  E k(r, r') + E k(f, f') - 2 E k(r, f)                    k(x, y) = (x . y / d + 1)^3

FD from few pictures is too large, by an amount that differs from model to model, and from fewer than it has
dimensions it is meaningless; KID has no such bias. Features are float64 throughout.
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from diffusion_art.errors import UserError

FD_LEAST = 1000  # pictures a side


def frechet_distance(real: Float[Tensor, "n d"], fake: Float[Tensor, "m d"]) -> float:
    """The Frechet distance of two sets of features.

    With centred features X = Q R and S = R^T R / (n - 1), tr (S_r S_f)^(1/2) is the sum of the singular values of
    R_r R_f^T: no square root of a matrix, no negative eigenvalue, half the digits lost.

    Paper: Heusel et al. 2017, https://arxiv.org/abs/1706.08500

    Raises:
        UserError: fewer pictures than 1,000 or than features on either side, or features that are not finite.
    """
    _check(real, fake)
    check_count(min(len(real), len(fake)), real.shape[1])
    (mean_r, root_r), (mean_f, root_f) = _moments(real), _moments(fake)
    spread = root_r.square().sum() + root_f.square().sum() - 2 * torch.linalg.svdvals(root_r @ root_f.T).sum()
    return float((mean_r - mean_f).square().sum() + spread)


def least_count(dim: int) -> int:
    """How many pictures a Frechet distance in so many features takes."""
    return max(FD_LEAST, dim + 1)


def check_count(pictures: int, dim: int) -> None:
    """UserError where a Frechet distance of so many pictures in so many features would say little."""
    if pictures < (least := least_count(dim)):
        raise UserError(
            f"a Frechet distance of {pictures:,} pictures in {dim:,} features says little: it takes at least "
            f"{least:,}. Give pictures={least}, or ask for kid instead of fd, which few pictures do not bias."
        )


def kernel_distance(
    real: Float[Tensor, "n d"],
    fake: Float[Tensor, "m d"],
    *,
    subsets: int = 100,
    subset_size: int = 256,
    seed: int = 0,
) -> tuple[float, float | None]:
    """(mean, standard deviation) of the kernel distance over random subsets of both sides; may be below 0.

    The squared maximum mean discrepancy by its unbiased estimate. The deviation is that of one subset's estimate; None
    where there is one subset, because one was asked for or both sides are of its size.

    Paper: Binkowski et al. 2018, https://arxiv.org/abs/1801.01401

    Raises:
        UserError: fewer pictures than `subset_size` on either side, or features that are not finite.
    """
    _check(real, fake)
    count = min(len(real), len(fake))
    if not 2 <= subset_size <= count:
        raise UserError(f"subsets of {subset_size} cannot be drawn from {count} pictures. Give pictures={subset_size}.")
    k_rr, k_ff, k_rf = polynomial_kernels(real, fake)
    for own in (k_rr, k_ff):
        own.fill_diagonal_(0)  # a picture beside itself is no pair
    generator, values = torch.Generator().manual_seed(seed), []
    for _ in range(subsets):
        r = torch.randperm(len(real), generator=generator)[:subset_size]
        f = torch.randperm(len(fake), generator=generator)[:subset_size]
        own = (k_rr[r][:, r].sum() + k_ff[f][:, f].sum()) / (subset_size * (subset_size - 1))
        values.append(own - 2 * k_rf[r][:, f].mean())
    drawn = torch.stack(values)
    one = subsets == 1 or subset_size == len(real) == len(fake)
    return float(drawn.mean()), None if one else float(drawn.std(correction=0))


def polynomial_kernels(real: Float[Tensor, "n d"], fake: Float[Tensor, "m d"]) -> tuple[Tensor, Tensor, Tensor]:
    """k(r, r') [n n], k(f, f') [m m] and k(r, f) [n m]."""
    return _kernel(real, real), _kernel(fake, fake), _kernel(real, fake)


def kernel_error(
    k_rr: Float[Tensor, "n n"], k_ff: Float[Tensor, "m m"], k_rf: Float[Tensor, "n m"], *, own_pairs: bool = False
) -> float:
    """Standard error of the squared maximum mean discrepancy of two sets, by the jackknife.

    With `own_pairs` of the biased estimate, in which a picture makes a pair with itself. The sides count as drawn
    independently of each other.

    Paper: Efron & Stein 1981, The jackknife estimate of variance, https://doi.org/10.1214/aos/1176345462
    """
    within = [_without_one(own, own_pairs=own_pairs) for own in (k_rr, k_ff)]
    across = [(k_rf.sum() - k_rf.sum(axis)) / (k_rf.numel() - k_rf.shape[axis]) for axis in (1, 0)]
    variance = sum(
        (len(own) - 1) / len(own) * (value - value.mean()).square().sum()
        for own, cross in zip(within, across)
        for value in [own - 2 * cross]
    )
    return float(variance**0.5)


def _without_one(kernel: Float[Tensor, "n n"], *, own_pairs: bool) -> Float[Tensor, " n"]:
    """The mean of a side's kernel without each of its pictures."""
    n, diagonal = len(kernel), kernel.diagonal()
    if own_pairs:
        return (kernel.sum() - 2 * kernel.sum(1) + diagonal) / (n - 1) ** 2
    own = kernel.sum(1) - diagonal
    return (own.sum() - 2 * own) / ((n - 1) * (n - 2))


def frechet_error(
    real: Float[Tensor, "n d"], fake: Float[Tensor, "m d"], resamples: int, generator: torch.Generator
) -> float:
    """Standard deviation of the Frechet distance over bootstrap samples of both sides.

    Paper: Efron 1979, Bootstrap methods, https://doi.org/10.1214/aos/1176344552
    """
    values = []
    for _ in range(resamples):
        r, f = (side[torch.randint(len(side), (len(side),), generator=generator)] for side in (real, fake))
        values.append(frechet_distance(r, f))
    return float(torch.tensor(values, dtype=torch.float64).std())


def _moments(features: Tensor) -> tuple[Tensor, Tensor]:
    """Mean, and R with R^T R the covariance."""
    mean = features.mean(0)
    return mean, torch.linalg.qr(features - mean, mode="r").R / (len(features) - 1) ** 0.5


def _kernel(x: Tensor, y: Tensor) -> Tensor:
    return (x @ y.T / x.shape[1] + 1) ** 3


def _check(real: Tensor, fake: Tensor) -> None:
    if real.dtype != torch.float64 or fake.dtype != torch.float64 or real.shape[1] != fake.shape[1]:
        raise ValueError(f"features must be float64 and of one network, not {real.dtype} {real.shape}, {fake.dtype}")
    if not (real.isfinite().all() and fake.isfinite().all()):
        raise UserError("some features are not finite: the feature network or its weights are damaged.")
