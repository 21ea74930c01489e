"""Train the judge on fresh painter pictures, and measure it on others: minutes on two CPU cores.

The pictures come from seeds no training run uses, and show every style x colour combination equally often,
also those kept from training: the judge must know what a model is asked to invent, and must not guess the
style from the colours.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import simplejpeg
import torch
from jaxtyping import Float, Int, UInt8
from torch import Tensor
from torch.nn import functional as F

from diffusion_art.evaluation.judge import JUDGE_SIZE_PX, WEIGHTS, Judge, save_judge
from diffusion_art.sources.painter import COLOUR_NAMES, HELD_OUT_PAIRS_PER_STYLE, PAIRS, Painter

log = logging.getLogger(__name__)

TRAIN_SEED, TEST_SEED = 7_001_000, 7_002_000  # far from the seeds of data sets; + image size


@dataclass
class Labelled:
    """Painter pictures at 32 px with their truth."""

    images: UInt8[Tensor, "n 3 s s"]
    styles: Int[Tensor, " n"]
    colours: Int[Tensor, "n 2"]  # ascending

    @staticmethod
    def paint(count: int, *, seed: int, image_size_px: int = JUDGE_SIZE_PX, held_out: bool = False) -> Labelled:
        """`count` pictures painted at `image_size_px` and averaged down to the judge's size."""
        painter = Painter(seed=seed + image_size_px, count=count, image_size_px=image_size_px, held_out=held_out)
        step = image_size_px // JUDGE_SIZE_PX
        shape = (JUDGE_SIZE_PX, step, JUDGE_SIZE_PX, step, 3)
        images, styles, colours = [], [], []
        for index in range(count):
            painting = painter.paint(index)
            images.append((painting.image.reshape(shape).mean((1, 3)) + 0.5).astype(np.uint8))
            styles.append(painting.commission.style)
            colours.append(sorted(painting.commission.colours))
        stack = torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2).contiguous()
        return Labelled(stack, torch.tensor(styles), torch.tensor(colours))

    @staticmethod
    def cat(parts: list[Labelled]) -> Labelled:
        return Labelled(
            torch.cat([part.images for part in parts]),
            torch.cat([part.styles for part in parts]),
            torch.cat([part.colours for part in parts]),
        )

    def __len__(self) -> int:
        return len(self.styles)


def degrade(images: UInt8[Tensor, "b 3 s s"], generator: torch.Generator) -> Float[Tensor, "b 3 s s"]:
    """What a young model does to a picture: JPEG, blur, fading, speckle, blotches, each at random strength.

    A third of the pictures stay as they are.
    """
    count = len(images)

    def draw(low: float, high: float) -> Float[Tensor, "b 1 1 1"]:
        return torch.rand(count, 1, 1, 1, generator=generator) * (high - low) + low

    clean = images.float() / 127.5 - 1
    x = clean.clone()
    quality = torch.randint(30, 95, (count,), generator=generator).tolist()
    for row in torch.randperm(count, generator=generator)[: count // 4].tolist():
        pixels = np.ascontiguousarray(images[row].permute(1, 2, 0).numpy())
        decoded = simplejpeg.decode_jpeg(simplejpeg.encode_jpeg(pixels, quality=quality[row]))
        x[row] = torch.from_numpy(decoded).permute(2, 0, 1).float() / 127.5 - 1
    if torch.rand((), generator=generator) < 0.5:
        x = x.flip(3)  # every style has its mirror image, and no label tells left from right
    blur = F.avg_pool2d(F.pad(x, (1, 1, 1, 1), mode="reflect"), 3, stride=1)
    x = torch.lerp(x, blur, draw(0.0, 0.75))
    grey = x.mean(1, keepdim=True)
    x = torch.lerp(grey, x, draw(0.75, 1.15)) * draw(0.88, 1.1) + draw(-0.08, 0.08)
    x = x + draw(0.0, 0.16) ** 2 * 4 * torch.randn(x.shape, generator=generator)
    blotches = torch.randn(count, 3, 8, 8, generator=generator)
    x = x + draw(0.0, 0.12) * F.interpolate(blotches, size=x.shape[-2:], mode="bilinear", align_corners=False)
    keep = torch.rand(count, 1, 1, 1, generator=generator) < 1 / 3
    return torch.where(keep, clean, x.clamp(-1, 1))


def batches(data: Labelled, *, batch_size: int, steps: int, generator: torch.Generator) -> Iterator[Tensor]:
    """Index tensors of endless reshuffled epochs, `steps` of them."""
    order = torch.empty(0, dtype=torch.long)
    for _ in range(steps):
        if len(order) < batch_size:
            order = torch.cat([order, torch.randperm(len(data), generator=generator)])
        yield order[:batch_size]
        order = order[batch_size:]


@torch.no_grad()
def accuracy(judge: Judge, data: Labelled, *, degraded: bool = False) -> dict[str, float]:
    """Share of pictures whose style is right, and share with both colours right."""
    generator = torch.Generator().manual_seed(0)
    style_hits = colour_hits = 0
    for start in range(0, len(data), 256):
        images = data.images[start : start + 256]
        verdict = judge.verdict(degrade(images, generator) if degraded else images.float() / 127.5 - 1)
        style_hits += int((verdict.styles == data.styles[start : start + 256]).sum())
        colour_hits += int((verdict.colours == data.colours[start : start + 256]).all(1).sum())
    return {"style": style_hits / len(data), "palette": colour_hits / len(data)}


def fit_judge(data: Labelled, *, steps: int, batch_size: int = 128, peak_lr: float = 4e-3, seed: int = 0) -> Judge:
    """Cross-entropy for the style plus binary cross-entropy for the colours; AdamW, one-cycle rate."""
    torch.manual_seed(seed)
    generator = torch.Generator().manual_seed(seed)
    judge = Judge().to(memory_format=torch.channels_last).train()
    optimizer = torch.optim.AdamW(judge.parameters(), lr=peak_lr, weight_decay=0.02)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, peak_lr, total_steps=steps)
    targets = F.one_hot(data.colours, len(COLOUR_NAMES)).sum(1).float()
    for step, rows in enumerate(batches(data, batch_size=batch_size, steps=steps, generator=generator)):
        images = degrade(data.images[rows], generator).contiguous(memory_format=torch.channels_last)
        style, colour = judge(images)
        loss = F.cross_entropy(style, data.styles[rows], label_smoothing=0.02)
        loss = loss + 4 * F.binary_cross_entropy_with_logits(colour, targets[rows])
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
        schedule.step()
        if step % 100 == 0:
            log.info("step %d of %d, loss %.4f", step, steps, loss.item())
    return judge.eval()


def train_judge(
    path: Path = WEIGHTS, *, pictures: int = 24_000, steps: int = 1000, test_share: float = 1.0
) -> dict[str, float]:
    """Paint, fit, measure on fresh pictures, write the weights; returns the scores stored with them.

    `test_share` shrinks the test sets, for a quick try.
    """
    sizes = {32: 0.75, 64: 0.18, 128: 0.07}  # share of the pictures painted at each size
    kept = HELD_OUT_PAIRS_PER_STYLE / len(PAIRS)  # share of the combinations that training never shows
    log.info("painting %d pictures", pictures)
    parts = []
    for size, share in sizes.items():
        for held_out, part in ((False, 1 - kept), (True, kept)):
            count = round(pictures * share * part)
            parts.append(Labelled.paint(count, seed=TRAIN_SEED, image_size_px=size, held_out=held_out))
    data = Labelled.cat(parts)
    judge = fit_judge(data, steps=steps)
    scores = {}
    for name, size, held_out, degraded, count in (
        ("seen", 32, False, False, 4000),
        ("held_out", 32, True, False, 4000),
        ("degraded", 32, False, True, 4000),
        ("64px", 64, False, False, 1600),
        ("128px", 128, False, False, 800),
    ):
        count = round(count * test_share)
        test = Labelled.paint(count, seed=TEST_SEED, image_size_px=size, held_out=held_out)
        for task, value in accuracy(judge, test, degraded=degraded).items():
            scores[f"{name}/{task}"] = round(value, 4)
        scores[f"{name}/count"] = count
        log.info("%s: style %.4f, both colours %.4f", name, scores[f"{name}/style"], scores[f"{name}/palette"])
    save_judge(judge, path, scores=scores)
    return scores
