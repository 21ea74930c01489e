"""U V^T of many matrices by products alone: Newton-Schulz iteration with a quintic (Jordan et al. 2024).

    X <- a X + (b A + c A^2) X,   A = X X^T,   from X of norm 1, on the wide side

https://kellerjordan.github.io/posts/muon/
"""

from __future__ import annotations

from collections import defaultdict

import torch
from jaxtyping import Float
from torch import Tensor

ADAM_SIZE = 0.2  # root mean square of an AdamW update, over its learning rate (Liu et al. 2025, section 2.2)
QUINTIC = (3.4445, -4.7750, 2.0315)  # Jordan's coefficients: steep at zero, so that five steps suffice
GRAM_FROM = 4  # columns over rows from which it is faster, on a CPU, to iterate on the Gram matrix
GRAM_BELOW = 50_000  # numbers of a stack below which it is too, since there it can go together with others
TINY = 1e-7  # what a matrix of zeros is divided by


def orthogonalise(
    *stacks: Float[Tensor, "_n _r _c"], steps: int = 5, dtype: torch.dtype = torch.bfloat16
) -> list[Float[Tensor, "_n _r _c"]]:
    """U V^T of each matrix's singular value decomposition, nearly: singular values land in about [0.7, 1.2].

    Matrices of a shape come as one stack.
    """
    wide = [x.mT if x.shape[1] > x.shape[2] else x for x in stacks]
    on_gram = defaultdict(list)  # by rows, the numbers of the stacks: Gram matrices of as many rows go together
    done: dict[int, Tensor] = {}
    for number, x in enumerate(wide):
        if x.device.type == "cpu" and (x.shape[2] >= GRAM_FROM * x.shape[1] or x.numel() < GRAM_BELOW):
            on_gram[x.shape[1]].append(number)
        else:
            norm = x.float().norm(dim=(1, 2), keepdim=True).to(x.dtype)
            done[number] = newton_schulz((x / (norm + TINY)).to(dtype), steps=steps)
    for numbers in on_gram.values():
        done.update(zip(numbers, _by_gram([wide[number] for number in numbers], steps=steps), strict=True))
    return [(done[n].mT if wide[n] is not x else done[n]).to(x.dtype) for n, x in enumerate(stacks)]


def newton_schulz(x: Float[Tensor, "n r c"], *, steps: int) -> Float[Tensor, "n r c"]:
    """The iteration itself on matrices of norm 1, in their dtype."""
    a, b, c = QUINTIC
    for _ in range(steps):
        gram = torch.bmm(x, x.mT)
        x = torch.baddbmm(x, torch.baddbmm(gram, gram, gram, beta=b, alpha=c), x, beta=a)
    return x


def _by_gram(stacks: list[Float[Tensor, "_n r _c"]], *, steps: int) -> list[Float[Tensor, "_n r _c"]]:
    """The same iteration on A alone, X <- P X being A <- P A P with P = a + b A + c A^2, and X multiplied once.

    For a kernel of three by three 2.7 times fewer FLOPs, and one iteration for all kernels of as many rows. All in
    float32: an eigenvalue that rounding made negative grows twelvefold a step, and what the matrix lacks stands in the
    product five hundred times as large as the rest.
    """
    a, b, c = QUINTIC
    stacks = [x.float() for x in stacks]
    gram = torch.cat([torch.bmm(x, x.mT) for x in stacks])
    norm = gram.diagonal(dim1=1, dim2=2).sum(1).sqrt()[:, None, None] + TINY
    gram, product = gram / norm.square(), 1 / norm
    for step in range(steps):
        factor = torch.baddbmm(gram, gram, gram, beta=b, alpha=c)
        factor.diagonal(dim1=1, dim2=2).add_(a)
        product = factor * product if step == 0 else torch.bmm(factor, product)
        if step < steps - 1:
            gram = torch.bmm(torch.bmm(factor, gram), factor)
    return [
        torch.bmm(p, x) if steps else p * x
        for p, x in zip(product.split([len(x) for x in stacks]), stacks, strict=True)
    ]


def as_matrix(x: Float[Tensor, "r *rest"], *, like: Float[Tensor, "r *rest"]) -> Float[Tensor, "r c"]:  # noqa: UP037, F821
    """[out, everything else], with the columns in the order in which `like` lies in memory: of it, a view.

    Another order of columns is as good, since orthogonalising commutes with it, and saves copies of kernels.
    """
    if like.ndim == 4 and like.is_contiguous(memory_format=torch.channels_last):
        x = x.permute(0, 2, 3, 1)
    return x.flatten(1)
