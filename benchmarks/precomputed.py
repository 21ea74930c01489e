"""Training from latents, text states and image features computed before, against encoding on the way.

    python benchmarks/precomputed.py [rounds=3] [steps=12] [size=128] [batch=8] [pictures=512] [backbone=unet_tiny]

One network on latents of a small VAE with a factor of 8, of the blocks of `+experiment=autoencoder`, and a frozen text
tower of the shape of CLIP's ViT-B-32; both have random weights, since time does not depend on them. A round trains
`steps` steps on pictures and captions of the painter from either side, loaders and optimiser included, in full
precision. The text tower remembers no captions, since an epoch of a large collection shows each once. Of image features
both sides train the network on the pixels themselves, with text states computed before and an alignment to
EfficientNet-Lite0. Sides alternate; the ratio is the median over the rounds. What precomputing takes is a row of its
own.
"""

from __future__ import annotations

import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
from record import claim, command, figure, write

from diffusion_art.checkpoints import build_model
from diffusion_art.config import build, config_dir
from diffusion_art.data.datamodule import StreamDataModule
from diffusion_art.diffusion.objective import LogitNormal, NoWeighting, Objective
from diffusion_art.models.autoencoder import Autoencoder
from diffusion_art.shards.build.build import build_shards
from diffusion_art.shards.build.engine import LocalEngine
from diffusion_art.shards.places import Component
from diffusion_art.shards.reader import ShardSet
from diffusion_art.shards.side_files import FEATURES, LATENTS, TEXT
from diffusion_art.sources.painter import Painter
from diffusion_art.training.precompute.precomputed import wanted
from diffusion_art.training.precompute.precomputing import Encoders, precompute
from diffusion_art.training.step import TrainingStep
from diffusion_art.training.terms.alignment import Alignment

EARLY: dict[str, Any] = {"payload": "latents", "text_states": True}
SEEN: dict[str, Any] = {"image_features": True}
TOWER = {"_target_": "diffusion_art.models.image_tower.Lite0", "image_size_px": 96, "stride": 16}


def encoders(folder: Path, size: int) -> dict[str, Any]:
    """The nodes of a VAE and a text tower with random weights."""
    import open_clip
    from safetensors.torch import save_file

    torch.manual_seed(0)
    vae = Autoencoder(image_size_px=size, block_channels=[32, 64, 128, 128], latent_channels=4, norm_groups=32)
    vae.net.save_pretrained(folder / "vae")
    tower = folder / "tower.safetensors"
    save_file(open_clip.create_model("ViT-B-32").state_dict(), tower)
    text = {"model": "ViT-B-32", "pretrained": str(tower), "cache_captions": 0}
    return {
        "codec": {"_target_": "diffusion_art.models.vae.Vae", "path": str(folder / "vae")},
        "text_encoder": {"_target_": "diffusion_art.models.text_encoder.OpenClipPretrained", **text},
    }


def model_node(node: dict[str, Any], backbone: str, size: int, *, attention_side: int) -> dict[str, Any]:
    from omegaconf import OmegaConf

    def part(name: str) -> Any:
        return OmegaConf.to_container(OmegaConf.load(config_dir() / "model" / f"{name}.yaml"))

    network = {**part(f"backbone/{backbone}"), "attention_sides": [attention_side]}
    return {
        "_target_": "diffusion_art.models.text_to_image.TextToImage",
        "backbone": network,
        "schedule": part("schedule/flow"),
        "prediction": part("prediction/flow"),
        "image_size_px": size,
        **node,
    }


class Side:
    """A training on shards, from pictures and captions, or from what `early` settings say was computed of them."""

    def __init__(
        self, node: dict[str, Any], shards: Path, *, size: int, batch: int, early: dict[str, Any], aligned: bool = False
    ) -> None:
        torch.manual_seed(0)
        objective = Objective(times=LogitNormal(), weighting=NoWeighting())
        model = build_model(node)
        terms = [Alignment(**Alignment.of_model(model), tower=build(TOWER), total_steps=10**6)] if aligned else []
        self.step = TrainingStep(model, objective, terms=terms).train()
        self.batch = batch
        settings = {"image_size_px": size, "global_batch_size": batch, "num_workers": 1, **early}
        self.data = StreamDataModule(shards=str(shards), url="shards", **settings)
        curriculum = {"_target_": "diffusion_art.data.curriculum.Curriculum"}
        run = {"data": {"payload": "jpeg", "curriculum": curriculum, **settings}}
        self.data.precomputed = wanted(run, self.step, command="precompute")
        self.data.setup()
        self.batches = iter(self.data.train_dataloader())
        self.optimizer = torch.optim.AdamW((p for p in self.step.parameters() if p.requires_grad), lr=1e-4)
        self.train(2)

    def train(self, steps: int) -> float:
        """Pictures/s."""
        started = time.perf_counter()
        for _ in range(steps):
            batch = self.data.on_after_batch_transfer(next(self.batches), 0)
            loss = self.step(self.step.drawn(batch, global_batch_size=self.batch), step=0).total()
            self.optimizer.zero_grad()
            loss.backward()
            self.optimizer.step()
        return steps * self.batch / (time.perf_counter() - started)


def alternated(early: Side, late: Side, *, rounds: int, steps: int) -> tuple[float, float, float]:
    """Pictures/s of both, and the median ratio."""
    rates: list[list[float]] = [[], []]
    for number in range(rounds):
        for which in (0, 1) if number % 2 == 0 else (1, 0):
            rates[which].append((early, late)[which].train(steps))
        print(f"round {number + 1}: early {rates[0][-1]:.1f}, on the way {rates[1][-1]:.1f} pictures/s", flush=True)
    for side in (early, late):
        side.data.teardown()
    ratio = statistics.median(one / other for one, other in zip(*rates, strict=True))
    return statistics.median(rates[0]), statistics.median(rates[1]), ratio


def main(
    rounds: str = "3",
    steps: str = "12",
    size: str = "128",
    batch: str = "8",
    pictures: str = "512",
    backbone: str = "unet_tiny",
) -> None:
    given = {"rounds": rounds, "steps": steps, "size": size, "batch": batch, "pictures": pictures}
    given["backbone"] = backbone
    size_px, count, often = int(size), int(pictures), {"rounds": int(rounds), "steps": int(steps)}
    with tempfile.TemporaryDirectory() as name:
        folder, shards = Path(name), Path(name) / "shards"
        node = encoders(folder, size_px)
        painter = Painter(count=count, image_size_px=size_px)
        build_shards(painter, shards, image_size_px=size_px, val_fraction=0.0, progress=False)
        speeds = [asked_before(shards, node, what) for what in ((LATENTS, TEXT), (FEATURES,))]
        sizes: dict[str, Any] = {"size": size_px, "batch": int(batch)}
        latents = model_node(node, backbone, size_px, attention_side=8)
        sides = [Side(latents, shards, early=early, **sizes) for early in (EARLY, {})]
        encoded = alternated(*sides, **often)
        pixels = node | {"codec": {"_target_": "diffusion_art.models.codec.Unshuffle2"}}
        aligned = model_node(pixels, backbone, size_px, attention_side=16)
        states = {"text_states": True}
        sides = [Side(aligned, shards, early=early, aligned=True, **sizes) for early in (states | SEEN, states)]
        seen = alternated(*sides, **often)
    more = {"threads": torch.get_num_threads(), "command": command("precomputed", **given)}
    rows = [
        claim(
            f"training from precomputed latents and text states, {size} px, pictures/s",
            ours=encoded[0],
            peer=encoded[1],
            peer_name="encoding on the way",
            ratio=encoded[2],
            goal=">= 1.4",
            holds=encoded[2] >= 1.4,
            **more,
        ),
        claim(
            f"training from precomputed image features, {size} px, pictures/s",
            ours=seen[0],
            peer=seen[1],
            peer_name="asking the tower on the way",
            ratio=seen[2],
            goal=">= 1",
            holds=seen[2] >= 1,
            **more,
        ),
        figure(f"precompute of latents and text states, {size} px, pictures/s, starting included", speeds[0], **more),
        figure(f"precompute of image features, {size} px, pictures/s, starting included", speeds[1], **more),
    ]
    write("precomputed", rows)


def asked_before(shards: Path, node: dict[str, Any], what: tuple[str, ...]) -> float:
    """Pictures/s of the encoders; what they say lies beside the shards then."""
    started = time.perf_counter()
    asked = Encoders(node, what, "cpu", TOWER)
    list(precompute(Component(shards), asked, LocalEngine(), progress=False))
    return sum(ShardSet.open(shards).splits.values()) / (time.perf_counter() - started)


if __name__ == "__main__":
    main(**dict(word.split("=", 1) for word in sys.argv[1:]))
