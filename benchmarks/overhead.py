"""What Lightning, the callbacks and the stream cost over a bare loop on tensors in memory.

    python benchmarks/overhead.py [rounds=5] [steps=60]

Each round trains the quickstart model for `steps` steps twice: with the shell, as `train` builds it (server
process, socket,
loader worker, all callbacks; no sample grid or validation falls inside the steps timed), and in a plain PyTorch loop on
the same pictures already decoded. The sides alternate, the first ten steps of each are left out, and the ratio is
that of the pair; its median over the rounds is the claim.
"""

from __future__ import annotations

import statistics
import sys
import tempfile
import time
from pathlib import Path

import torch
from hydra import compose, initialize_config_dir
from lightning.pytorch import Callback
from record import claim, write

from diffusion_art.cli import config_dir
from diffusion_art.train import build_datamodule, build_module, build_trainer, quieten, settle
from diffusion_art.training.seeding import draw_step

SKIPPED = 10


class Stamps(Callback):
    def __init__(self) -> None:
        self.times: list[float] = []

    def on_train_batch_end(self, *args, **kwargs) -> None:
        self.times.append(time.perf_counter())


def settings_of(steps: int, folder: Path) -> dict:
    overrides = [
        "+experiment=quickstart",
        f"trainer.max_steps={steps}",
        f"trainer.val_check_interval={steps}",
        "callbacks.samples=null",
        "callbacks.caption_following=null",
        f"callbacks.checkpoints.every_n_steps={steps}",
        f"paths.log_dir={folder}",
    ]
    with initialize_config_dir(str(config_dir()), version_base="1.3"):
        return settle(compose("train", overrides=overrides), folder / "run")


def shell(settings: dict) -> float:
    """Images/s of the whole training shell."""
    datamodule, module, trainer = build_datamodule(settings), build_module(settings), build_trainer(settings)
    stamps = Stamps()
    trainer.callbacks.append(stamps)
    trainer.fit(module, datamodule=datamodule)
    return _rate(stamps.times, settings)


def bare(settings: dict, batches: list) -> float:
    """Images/s of the same maths in a plain loop."""
    module = build_module(settings)
    module.train()
    optimizer = module.configure_optimizers()["optimizer"]
    autocast = settings["trainer"]["precision"] == "bf16-mixed"
    times = []
    for batch in batches:
        with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
            x_0 = module.model.codec.encode(batch.images)
            draw = draw_step(
                batch,
                tuple(x_0.shape[1:]),
                seed=0,
                global_batch_size=len(batch),
                times=module.objective.times,
                caption_dropout=module.caption_dropout,
            )
            captions = ["" if drop else text for text, drop in zip(batch.captions, draw.dropped.tolist())]
            loss = module.losses(x_0, draw.eps, draw.t, captions).mean()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(module.parameters(), settings["trainer"]["gradient_clip_val"])
        optimizer.step()
        optimizer.zero_grad()
        module.ema.update()
        times.append(time.perf_counter())
    return _rate(times, settings)


def _rate(times: list[float], settings: dict) -> float:
    steps = len(times) - SKIPPED - 1
    return steps * settings["data"]["global_batch_size"] / (times[-2] - times[SKIPPED - 1])


def main(rounds: int = 5, steps: int = 60) -> None:
    quieten()
    with tempfile.TemporaryDirectory() as folder:
        settings = settings_of(steps, Path(folder))
        datamodule = build_datamodule({**settings, "data": {**settings["data"], "url": "shards", "num_workers": 0}})
        datamodule.prepare_data()
        datamodule.setup()
        loader = datamodule.train_dataloader()
        batches = [batch for batch, _ in zip(loader, range(steps))]
        pairs = []
        for number in range(rounds):
            sides = [lambda: shell(settings), lambda: bare(settings, batches)]
            if number % 2:
                theirs, ours = sides[1](), sides[0]()
            else:
                ours, theirs = sides[0](), sides[1]()
            pairs.append((ours, theirs))
            print(f"round {number + 1}: shell {ours:.1f}, bare {theirs:.1f} images/s, ratio {ours / theirs:.3f}")
    ratio = statistics.median(ours / theirs for ours, theirs in pairs)
    row = claim(
        "quickstart images/s, 2 cores: Lightning + callbacks + stream",
        ours=statistics.median(ours for ours, _ in pairs),
        peer=statistics.median(theirs for _, theirs in pairs),
        peer_name="bare PyTorch loop on tensors in memory",
        ratio=ratio,
        goal=">= 0.95",
        holds=ratio >= 0.95,
        rounds=rounds,
        command=f"python benchmarks/overhead.py rounds={rounds} steps={steps}",
    )
    write("overhead", [row])


if __name__ == "__main__":
    main(**{name: int(value) for name, _, value in (word.partition("=") for word in sys.argv[1:])})
