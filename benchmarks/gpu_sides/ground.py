"""What every part stands on: the device, how much is measured, settled runs of `wikiart`, batches in memory."""

from __future__ import annotations

import gc
import hashlib
import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cache, cached_property
from itertools import cycle
from pathlib import Path
from typing import Any

import torch
from hydra import compose, initialize_config_dir
from safetensors.torch import save_file

from diffusion_art.accel import switch
from diffusion_art.config import config_dir
from diffusion_art.data.transforms import to_float
from diffusion_art.launching.batches import settle_batch_size
from diffusion_art.launching.settle import settle
from diffusion_art.sources.painter import Painter
from diffusion_art.tensors import Batch
from diffusion_art.training.run.provenance import commit

CLIP = "ViT-B-32"
SMALL_CLIP = {
    "embed_dim": 24,
    "vision_cfg": {"image_size": 32, "layers": 1, "width": 16, "head_width": 8, "patch_size": 16},
    "text_cfg": {"context_length": 77, "vocab_size": 49408, "width": 32, "heads": 2, "layers": 1},
}


@dataclass(frozen=True)
class Scale:
    """How much is measured."""

    image_size_px: int = 128
    batch: int = 128  # pictures of a step
    parts_before: int = 4  # in which `wikiart` took them before
    overrides: tuple[str, ...] = ()  # of every run
    compiles: bool = True  # False: what is to be compiled runs as it is
    turns: int = 5
    steps: int = 8  # of a turn
    warm_up: int = 3  # steps of each side before the first turn: compiling, allocating, choosing algorithms
    gemm_side: int = 8192
    copy_bytes: int = 2**30
    num_steps: int = 20  # of the picture painted alone
    clients: int = 64
    served_steps: tuple[int, ...] = (4, 8, 15, 20, 30, 50)
    serve_s: float = 15.0
    norm_shape: tuple[int, int, int, int] = (128, 256, 32, 32)
    painter: tuple[int, ...] = (200, 400, 800, 1200, 1600)  # steps after which painter128 is measured
    baseline: tuple[int, ...] = (1600, 3200, 6400, 9600, 12800, 16000)
    painter_overrides: tuple[str, ...] = ()  # of the painter's runs
    prompts: tuple[int, int] = (1008, 96)  # of seen combinations, of held-out ones


SMALL = (
    "model.backbone={block_channels: [8, 16], layers_per_block: 1, attention_sides: [8], head_channels: 8}",
    "model.backbone.norm_groups=4",
)
FULL = Scale()
SMOKE = Scale(
    image_size_px=32,
    batch=8,
    overrides=SMALL,
    compiles=False,
    turns=2,
    steps=1,
    warm_up=1,
    gemm_side=64,
    copy_bytes=2**16,
    num_steps=2,
    clients=2,
    served_steps=(2, 3),
    serve_s=1.0,
    norm_shape=(2, 8, 4, 4),
    painter=(2, 4),
    baseline=(2,),
    painter_overrides=("data.source.count=64", "data.num_workers=0", "data.url=shards", "data.val_samples=8"),
    prompts=(4, 4),
)


@dataclass
class Ground:
    """A device and a scale; what is made on the way lies in `folder`."""

    device: torch.device
    scale: Scale
    folder: Path

    @property
    def on_gpu(self) -> bool:
        return self.device.type == "cuda"

    def about(self) -> dict[str, Any]:
        """What the figures depend on beside the machine's processor."""
        name = torch.cuda.get_device_name(self.device) if self.on_gpu else "cpu"
        return {"gpu": name, "torch": torch.__version__}

    def key(self) -> dict[str, Any]:
        """Raw numbers count again only for the same commit and files, device, torch and scale."""
        about = {"commit": commit(), "code": code_digest(), **self.about()}
        return {**about, "scale": json.loads(json.dumps(vars(self.scale)))}

    def wait(self) -> None:
        """Until the device has done all that was queued."""
        if self.on_gpu:
            torch.cuda.synchronize(self.device)

    def clear(self) -> None:
        """Give back what the last part held."""
        gc.collect()
        if self.on_gpu:
            torch.cuda.empty_cache()

    # ------------------------------------------------------------------ runs

    def settings(
        self, *overrides: str, experiment: str = "wikiart", tower: str = "open_clip_scratch"
    ) -> dict[str, Any]:
        """An experiment as `train` settles it on this device, with a text tower that needs no hub."""
        asked = [
            *(f"+experiment={experiment}", f"model/text_encoder={tower}", *self.scale.overrides),
            *(f"data.image_size_px={self.scale.image_size_px}", f"data.global_batch_size={self.scale.batch}"),
            *(f"trainer.accelerator={'gpu' if self.on_gpu else 'cpu'}", f"paths.log_dir={self.folder}"),
            *overrides,
        ]
        if not self.scale.compiles:
            asked.append("compile=false")
        with initialize_config_dir(str(config_dir()), version_base="1.3"):
            settings = settle(compose("train", overrides=asked), self.folder / "run")
        if settings["find_batch_size"]:
            settle_batch_size(settings, checkpoint=None, world=1)
        return settings

    def clip(self) -> list[str]:
        """Overrides for CLIP's text tower as `wikiart` has it, its weights random and read from a file."""
        folder = self.folder / ("clip" if self.scale == FULL else "clip-small")
        if not (folder / "open_clip_model.safetensors").exists():
            _write_clip(folder, SMALL_CLIP if self.scale != FULL else None)
        return [f"model.text_encoder.model=local-dir:{folder.resolve()}", "model.text_encoder.pretrained=null"]

    # ------------------------------------------------------------------ batches

    @cached_property
    def _painter(self) -> Painter:
        return Painter(count=10**6)

    def captions(self, first: int, count: int) -> list[str]:
        return [self._painter.commission(index).caption for index in range(first, first + count)]

    def batches(self, size: int, count: int, *, first_caption: int = 0) -> list[Batch]:
        """As the loader gives them: pictures of bytes in pinned memory, here of noise, and the painter's captions."""
        side, generator = self.scale.image_size_px, torch.Generator().manual_seed(0)
        few = [torch.randint(0, 256, (size, 3, side, side), dtype=torch.uint8, generator=generator) for _ in range(2)]
        pictures = cycle([images.pin_memory() for images in few] if self.on_gpu else few)
        captions = self.captions(first_caption, size * count)
        found = []
        for number in range(count):
            rows = range(number * size, (number + 1) * size)
            keys = [str(row) for row in rows]
            found.append(Batch(next(pictures), [captions[row] for row in rows], keys, list(rows), number + 1))
        return found

    def steps_of(self, *, parts: int = 1, count: int = 4) -> Iterator[list[Batch]]:
        """The parts of one step after the other, without end."""
        cut = self.batches(self.scale.batch // parts, parts * count)
        return cycle([cut[start : start + parts] for start in range(0, len(cut), parts)])

    def sent(self, batch: Batch) -> Batch:
        """On the device, as floats: what Lightning and the data module do before a step."""
        return replace(batch, images=to_float(batch.images.to(self.device, non_blocking=True)))


@cache
def code_digest() -> str:
    """Of the package, its configs and this benchmark: a copy may have no commit, or files that differ from it."""
    root = Path(__file__).parents[2]
    found = [
        *(root / "diffusion_art").rglob("*.py"),
        *(root / "conf").rglob("*.yaml"),
        *Path(__file__).parent.glob("*"),
    ]
    files = sorted(path for path in found if path.is_file())
    return hashlib.sha256(b"".join(path.read_bytes() for path in files)).hexdigest()[:12]


@contextmanager
def accelerated(on: bool) -> Iterator[None]:
    """Whether fast twins are used inside; never where the environment switches them off."""
    before = switch.ACCELERATES
    switch.ACCELERATES = on and before
    try:
        yield
    finally:
        switch.ACCELERATES = before


def _write_clip(folder: Path, config: dict[str, Any] | None) -> None:
    from open_clip.factory import get_model_config  # open_clip takes three seconds to import
    from open_clip.model import CLIP as Model

    config = config or get_model_config(CLIP)
    assert config is not None
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "open_clip_config.json").write_text(json.dumps({"model_cfg": config}))
    with torch.random.fork_rng([]):
        torch.manual_seed(0)
        save_file(Model(**config).state_dict(), folder / "open_clip_model.safetensors")
