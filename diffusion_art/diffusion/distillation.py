"""Distillation: a student whose one call lands where a guided teacher's ODE ends.

    loss_i = sqrt(mean_chw |f(x_t) - y|^2 + c^2) - c        f  the student's x_0_hat
    y = sg f(x_r),  or x_r itself where r = 0               x_r  x_t led from t to r by the teacher

with r = max(t - gap, 0). Where r > 0, y is the student's own answer from a gap further on, and so the end of the ODE
is handed back from x_0 to x_T gap by gap: consistency distillation, cheaper the smaller the gap. At gap = 1 the teacher
goes all the way and nothing is bootstrapped. Either way the f that costs nothing is the end of the teacher's
probability-flow ODE, whichever x_t of it is asked about, so `Consistency` (samplers/consistency.py) paints with it
in as many steps as one likes.

Papers: Luhman & Luhman 2021 (the whole way), https://arxiv.org/abs/2101.02388; Song et al. 2023 (consistency),
https://arxiv.org/abs/2303.01469; Luo et al. 2023 (guidance within), https://arxiv.org/abs/2310.04378; Geng et al.
2024 (start from the teacher's weights), https://arxiv.org/abs/2406.14548
"""

from __future__ import annotations

import math
from typing import cast

import torch
from einops import rearrange, reduce
from jaxtyping import Float
from torch import Tensor

from diffusion_art.diffusion.denoiser import AnyDenoiser, Backbone, Denoiser, Prediction, image_scales
from diffusion_art.diffusion.objective import Times
from diffusion_art.diffusion.schedules import Schedule
from diffusion_art.errors import UserError


class Distillation:
    """What a student minimises: one loss per image, as `Objective`, but taught by a denoiser.

    `teacher_steps` are the teacher's network calls for each image. `huber` is c, in units of the image range: errors
    well above it count by their size and not its square, so that pictures still far off do not drown the others (Song
    & Dhariwal 2023, section 3.3, https://arxiv.org/abs/2310.14189).

    Raises:
        UserError: a gap outside (0, 1], no teacher steps, or a huber that is not positive.
    """

    def __init__(self, *, times: Times, gap: float = 0.25, teacher_steps: int = 2, huber: float = 0.03) -> None:
        if not 0 < gap <= 1:
            raise UserError(f"objective.gap={gap} must lie in (0, 1]; 0.25 is usual, 1 is all of the way")
        if teacher_steps < 1:
            raise UserError(f"objective.teacher_steps={teacher_steps} must be at least 1; 2 is usual")
        if not (math.isfinite(huber) and huber > 0):
            raise UserError(f"objective.huber={huber} must be positive; 0.03 is usual")
        self.times = times
        self.gap = gap
        self.teacher_steps = teacher_steps
        self.huber = huber

    def __call__(
        self,
        backbone: Backbone,
        *,
        teacher: AnyDenoiser,
        schedule: Schedule,
        prediction: Prediction,
        x_0: Float[Tensor, "b c h w"],
        eps: Float[Tensor, "b c h w"],
        t: Float[Tensor, " b"],
    ) -> Float[Tensor, " b"]:
        """The pseudo-Huber distance in x_0, in float32 whatever the backbone's dtype."""
        student = Denoiser(backbone, schedule=schedule, prediction=prediction)
        alpha, sigma = image_scales(schedule, t)
        x_t = alpha * x_0 + sigma * eps
        r = (t - self.gap).clamp(min=0)
        with torch.no_grad():
            y = lead(teacher, x_t, t, r, num_steps=self.teacher_steps)
            if self.gap < 1:
                y = torch.where(rearrange(r, "b -> b 1 1 1") > 0, student(y, r), y)
        error = student(x_t, t).float() - y.float()
        mse = cast(Tensor, reduce(error**2, "b c h w -> b", "mean"))
        return (mse + self.huber**2).sqrt() - self.huber


def lead(
    teacher: AnyDenoiser,
    x_t: Float[Tensor, "b c h w"],
    t: Float[Tensor, " b"],
    r: Float[Tensor, " b"],
    *,
    num_steps: int,
) -> Float[Tensor, "b c h w"]:
    """x_r on the teacher's ODE through x_t, each image from its own t to its own r < t in steps even in time.

    DPM-Solver++(2M) as in `DPMSolverPP2M`, whose grid of times all images share: x_0_hat extrapolated from the last
    two, save in a step from or to infinite log SNR and in the one after. Lu et al. 2022, Algorithm 2,
    https://arxiv.org/abs/2211.01095
    """
    x, before, h_before = x_t, torch.zeros_like(x_t), torch.full_like(x_t[:, :1, :1, :1], math.inf)
    for step in range(num_steps):
        now, then = (torch.lerp(t, r, place / num_steps) for place in (step, step + 1))
        (alpha, sigma), (alpha_then, sigma_then) = (image_scales(teacher.schedule, time) for time in (now, then))
        x_0_hat = teacher(x, now)
        h = (alpha_then * sigma).log() - (alpha * sigma_then).log()  # inf from alpha = 0 and to sigma = 0
        ahead = torch.where(h.isfinite(), h / (2 * h_before), 0)
        shrink = sigma_then / sigma
        x = shrink * x + (alpha_then - shrink * alpha) * (x_0_hat + ahead * (x_0_hat - before))
        before, h_before = x_0_hat, h
    return x
