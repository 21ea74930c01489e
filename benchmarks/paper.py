"""What `wikiart` should do on an H100, on paper: FLOPs and bytes counted, images/s, hours and money from them.

    python benchmarks/paper.py [experiment=wikiart] [price=3.0] [tokens=32]

Nothing here is measured. The network runs forward and backward on the meta device, where tensors have shapes and no
values, in bfloat16 as autocast would have it, and every kernel's FLOPs and the bytes it reads and writes are added up.
The roofline gives each kernel the longer of its FLOPs at peak rate and its bytes at full bandwidth:

- eager: every kernel reads its inputs from memory and writes its outputs there;
- fused: norms, activations and sums ride along with the matrix product, convolution or attention beside them, as a
  perfect compiler would have it.

Beside the network it counts what a step moves for its weights: gradients, clipping, fused AdamW in float32, the
average and the cast to bfloat16. Left out: the loss, Muon's products, alignment, the text tower (each caption is read
once and remembered; a row says what that takes), launch times and the data. The hours are those of the experiment's own
steps.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import open_clip
import torch
from hydra import compose, initialize_config_dir
from open_clip.model import CLIP
from record import RESULTS, command, figure, write
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import FlopCounterMode, flop_registry

from diffusion_art.config import build, config_dir
from diffusion_art.sources.parquet.hub import JPEG_BYTES  # ours at 128 px are smaller
from diffusion_art.tensors import Conditioning

PEAK_FLOPS = 989e12  # H100 SXM, bfloat16, dense, from NVIDIA's data sheet
BANDWIDTH = 3.35e12  # bytes/s of its HBM3
UTILISATIONS = (0.25, 0.40, 0.50)
# what gives another look at the same values, and moves no memory
FREE = {"view", "_unsafe_view", "as_strided", "alias", "detach", "t", "transpose", "permute", "expand", "squeeze"}
FREE |= {"unsqueeze", "slice", "select", "split", "chunk", "unbind", "empty"}


@dataclass
class Kernels(TorchDispatchMode):
    """Adds up FLOPs, bytes and roofline seconds of all that runs inside."""

    flops: float = 0.0
    bytes: float = 0.0
    fused_bytes: float = 0.0
    eager_s: float = 0.0
    fused_s: float = 0.0

    def __post_init__(self) -> None:
        super().__init__()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        if func.overloadpacket.__name__ in FREE:
            return out
        tensors = [leaf for leaf in tree_leaves((args, kwargs, out)) if isinstance(leaf, torch.Tensor)]
        moved = sum(tensor.numel() * tensor.element_size() for tensor in tensors)
        counter = flop_registry.get(func.overloadpacket)
        flops = counter(*args, **(kwargs or {}), out_val=out) if counter else 0
        self.flops += flops
        self.bytes += moved
        self.eager_s += max(flops / PEAK_FLOPS, moved / BANDWIDTH)
        if counter:
            self.fused_bytes += moved
            self.fused_s += max(flops / PEAK_FLOPS, moved / BANDWIDTH)
        return out


def network(settings: Any, *, text: dict[str, Any]) -> torch.nn.Module:
    """The experiment's backbone on the meta device, as its own text encoder would have it."""
    codec, size = build(settings.model.codec), settings.data.image_size_px
    with torch.device("meta"):
        return build(settings.model.backbone)(
            channels=codec.channels,
            sample_size=size // codec.factor,
            cross_attention_dim=text["text_cfg"]["width"],
            pooled_dim=text["embed_dim"],
        ).to(torch.bfloat16)


def inputs(net: Any, *, batch: int, tokens: int) -> tuple[torch.Tensor, torch.Tensor, Conditioning]:
    def empty(*shape: int, dtype: torch.dtype = torch.bfloat16) -> torch.Tensor:
        return torch.empty(*shape, dtype=dtype, device="meta")

    cond = Conditioning(
        empty(batch, tokens, net.cross_attention_dim),
        empty(batch, tokens, dtype=torch.bool),
        empty(batch, net.pooled_dim),
    )
    return empty(batch, net.channels, net.sample_size, net.sample_size), empty(batch), cond


def count(run: Callable[[], Any]) -> Kernels:
    with Kernels() as kernels:
        run()
    return kernels


def flops_of_tower(text: dict[str, Any]) -> float:
    """FLOPs of reading one caption."""
    with torch.device("meta"):
        clip = CLIP(**{key: text[key] for key in ("embed_dim", "vision_cfg", "text_cfg")})
        ids = torch.empty(1, text["text_cfg"]["context_length"], dtype=torch.long)
        with FlopCounterMode(display=False) as counter:
            clip.encode_text(ids)
    return counter.get_total_flops()


def weight_bytes(weights: int, *, parts: int) -> float:
    """Bytes a step moves for its weights: per part the cast (read 4, write 2) and the gradient's way into its sum
    (read 2 and 4, write 4); then clipping (8 read, 4 written), AdamW (16 and 12) and the average (8 and 4).
    """
    return weights * (parts * 16.0 + 12.0 + 28.0 + 12.0)


def measured(name: str) -> float:
    """A figure of the stream's results; 0 where they are not there."""
    path = RESULTS / "stream.json"
    rows = json.loads(path.read_text()) if path.exists() else []
    return next((row["ours"] for row in rows if row["measure"] == name), 0.0)


def main(experiment: str = "wikiart", price: str = "3.0", tokens: str = "32") -> None:
    with initialize_config_dir(str(config_dir()), version_base="1.3"):
        settings = compose("train", overrides=[f"+experiment={experiment}"])
    text = open_clip.get_model_config("ViT-B-32")
    assert text is not None
    net = network(settings, text=text)
    batch, parts = settings.data.global_batch_size, settings.trainer.accumulate_grad_batches
    x_t, t, cond = inputs(net, batch=batch, tokens=int(tokens))
    weights = sum(p.numel() for p in net.parameters())
    with torch.no_grad():
        forward = count(lambda: net(x_t, t, cond))
    part = count(lambda: net(x_t, t, cond).sum().backward())
    with FlopCounterMode(display=False) as counter:
        net(x_t, t, cond).sum().backward()
    assert counter.get_total_flops() == part.flops, (counter.get_total_flops(), part.flops)

    pictures, moved = batch * parts, weight_bytes(weights, parts=parts)
    flops = part.flops / batch
    rows = [
        figure(f"{experiment}: weights of the network, millions", weights / 1e6),
        figure("forward, GFLOPs per picture", forward.flops / batch / 1e9),
        figure("training, GFLOPs per picture", flops / 1e9),
        figure("text tower, GFLOPs per caption, once", flops_of_tower(text) / 1e9),
        figure("forward, eager, MB moved per picture", forward.bytes / batch / 1e6),
        figure("training, eager, MB moved per picture", part.bytes / batch / 1e6),
        figure("training, fused, MB moved per picture", part.fused_bytes / batch / 1e6),
        figure(f"weights, MB moved per picture, step of {batch} x {parts}", moved / pictures / 1e6),
        figure(f"the same, step of {pictures} x 1", weight_bytes(weights, parts=1) / pictures / 1e6),
        figure("FLOPs per byte, eager; an H100 balances at 295", part.flops / part.bytes),
        figure("FLOPs per byte, fused", part.flops / part.fused_bytes),
    ]
    for name, seconds in (("eager", part.eager_s), ("fused", part.fused_s)):
        step_s = parts * seconds + moved / BANDWIDTH
        rows.append(figure(f"roofline, {name}: utilisation, %", 100 * flops * pictures / PEAK_FLOPS / step_s))
        rows.append(figure(f"roofline, {name}: images/s", pictures / step_s))
    total = settings.trainer.max_steps * pictures
    for share in UTILISATIONS:
        rate = share * PEAK_FLOPS / flops
        hours = total / rate / 3600
        at = f"at {share:.0%} of 989 TFLOP/s"
        rows.append(figure(f"{at}: images/s", rate))
        rows.append(figure(f"{at}: hours for {total / 1e6:.3g} M pictures", hours))
        rows.append(figure(f"{at}: US$ at {float(price):.2f} an hour (assumed)", hours * float(price)))
    most = UTILISATIONS[-1] * PEAK_FLOPS / flops
    rows.append(figure("JPEGs asked for at 50 %, MB/s of 16.6 kB each", most * JPEG_BYTES / 1e6))
    for name in ("v2 jpeg, 2 workers", "server alone, v2 jpeg"):
        if rate := measured(name):
            rows.append(figure(f"H100s fed at 50 % by the stream as measured ({name})", rate / most))
    line = command("paper", experiment=experiment, price=price, tokens=tokens)
    write("paper", [{**row, "command": line} for row in rows])


if __name__ == "__main__":
    main(**dict(word.split("=", 1) for word in sys.argv[1:]))
