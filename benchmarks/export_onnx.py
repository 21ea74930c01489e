"""How fast an exported model paints: onnxruntime against our own network, compiled.

    python benchmarks/export_onnx.py [run=logs/quickstart] [rounds=9] [batch=4] [steps=8] [record=true]

The run is exported as ONNX, and its network compiled as the server compiles it, in float32 too. Both paint the same
captions from the same noise by the same sampler, captions read anew each time, and must come out with the same pictures
before they are timed. Sides alternate; the ratio is the median of the rounds. Without `run` the network is the
quickstart's with random weights, which takes as long.
"""

from __future__ import annotations

import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnxruntime
import torch
from hydra import compose, initialize_config_dir
from record import claim, command, machine, write
from torch import Tensor

from diffusion_art.config import build, config_dir, plain
from diffusion_art.diffusion.samplers import NoiseSource, Sampler, by_name
from diffusion_art.models.text_to_image import TextToImage
from diffusion_art.record import FORMAT, KEY
from diffusion_art.runs import Run, load_run
from diffusion_art.serving.engine.compile_network import compile_network
from diffusion_art.serving.engine.compiled import CompiledNetwork
from diffusion_art.sharing.onnx_folder import write_onnx
from diffusion_art.sharing.painting import Painting
from diffusion_art.sharing.table import painting_table
from diffusion_art.tensors import Conditioning

GOAL = 0.9
REST_S = 0.3  # between the sides: onnxruntime's threads go on looking for work for a while
CAPTION = "Claude Monet / Sunrise in Orange and Blue, Low Horizon / Impressionism / seascape / {}"


class OnnxPainter:
    """The loop of `examples/onnx_paint.py`, the networks opened once."""

    def __init__(self, folder: Path, painting: Painting) -> None:
        self.how = painting_table(painting)
        self.tokenizer = painting.model.text_encoder.tokenizer
        self.text, self.denoiser = (
            onnxruntime.InferenceSession(folder / f"{name}.onnx") for name in ("text_encoder", "denoiser")
        )

    def encode(self, captions: list[str]) -> dict[str, np.ndarray]:
        rows = [self.tokenizer.ids(caption) for caption in captions]
        length = self.how["context_length"]
        ids = np.array([row + [0] * (length - len(row)) for row in rows], np.int64)
        mask = np.arange(length) < np.array([[len(row)] for row in rows])
        taken = {one.name for one in self.text.get_inputs()}
        given = {"ids": ids, "mask": mask}
        tokens, pooled = self.text.run(None, {name: value for name, value in given.items() if name in taken})
        longest = max(map(len, rows))
        return {"tokens": tokens[:, :longest], "mask": mask[:, :longest], "pooled": pooled}

    def __call__(self, captions: list[str], x: np.ndarray) -> np.ndarray:
        n, scale = len(captions), np.float32(self.how["guidance_scale"])
        told = self.encode([*captions, *[""] * n])
        memory = last = np.zeros_like(x)
        for call in self.how["calls"]:
            x_t = np.concatenate([x, x])
            clock = np.full(2 * n, call["clock"], np.float32)
            out = self.denoiser.run(None, {"x_t": np.float32(call["shown"]) * x_t, "clock": clock, **told})[0]
            estimate = np.float32(call["of_input"]) * x_t + np.float32(call["of_out"]) * out
            x_0 = (estimate[n:] + scale * (estimate[:n] - estimate[n:])).clip(-1, 1)
            parts = [x, x_0, memory, last]
            x, memory = (
                sum(np.float32(k) * part for k, part in zip(call[to][:4], parts, strict=True)) for to in ("x", "memory")
            )
            last = x_0
        return x


def random_run(folder: Path) -> Run:
    """The quickstart's network with random weights, as a checkpoint."""
    with initialize_config_dir(str(config_dir()), version_base="1.3"):
        composed = compose("train", overrides=["+experiment=quickstart", "run=random", "prompts=painter"])
    composed.paths.run_dir = str(folder)
    model_node = plain(composed.model)
    torch.manual_seed(0)
    model: TextToImage = build(model_node)
    for weight in model.parameters():
        if not weight.any():
            torch.nn.init.normal_(weight, std=0.02)
    state = model.trainable_state()
    config = {"model": model_node, "guidance_scale": composed.guidance_scale, "prompts": [CAPTION.format(1872)]}
    path = folder / "random.ckpt"
    ours = {"format": FORMAT, "config": config, "ema": state, "step": 0}
    torch.save({"state_dict": {f"model.{name}": value for name, value in state.items()}, KEY: ours}, path)
    return load_run(path)


def our_painter(run: Run, sampler: Sampler, library: Path, *, batch: int) -> Callable[[list[str], list[int]], Tensor]:
    """`generate` with the network compiled as the server does, for up to twice the batch."""
    compile_network(run.model, library, dtype=torch.float32, max_rows=2 * batch)
    compiled = CompiledNetwork(library, dtype=torch.float32)

    def network(x_t: Tensor, t: Tensor, cond: Conditioning) -> Tensor:
        return compiled(x_t, t, cond)

    scale = run.guidance_scale()
    return lambda captions, seeds: run.model.generate(
        captions, seeds=seeds, sampler=sampler, guidance_scale=scale, network=network, batch_size=batch
    )


def seconds(work: Callable[[], object]) -> float:
    time.sleep(REST_S)
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


def measured(run: Run, folder: Path, *, rounds: int, batch: int, steps: int) -> list[tuple[float, float]]:
    """Pictures per second of onnxruntime and of ours, in turn."""
    sampler = by_name("dpmpp_2m", num_steps=steps)
    painting = Painting(run, sampler)
    theirs = OnnxPainter(write_onnx(folder / "onnx", painting), painting)
    ours = our_painter(run, sampler, folder / "network.so", batch=batch)
    captions, seeds = [CAPTION.format(1870 + row) for row in range(batch)], list(range(batch))
    noise = NoiseSource(seeds, run.model.latent_shape).x_T().numpy()
    latents = theirs(captions, noise)
    expected = ours(captions, seeds)
    torch.testing.assert_close(
        run.model.codec.decode(torch.from_numpy(latents)).clamp(-1, 1), expected, atol=8e-3, rtol=0
    )
    return [
        (batch / seconds(lambda: theirs(captions, noise)), batch / seconds(lambda: ours(captions, seeds)))
        for _ in range(rounds)
    ]


def main(run: str | None = None, rounds: int = 9, batch: int = 4, steps: int = 8, record: bool = True) -> None:
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        painted_by = load_run(run) if run else random_run(folder)
        timed = measured(painted_by, folder, rounds=rounds, batch=batch, steps=steps)
    ratios = [onnx / ours for onnx, ours in timed]
    ratio = statistics.median(ratios)
    row = claim(
        f"pictures/s of an exported model by onnxruntime, dpmpp_2m {steps} steps, batch {batch}, float32",
        ours=statistics.median(onnx for onnx, _ in timed),
        peer=statistics.median(ours for _, ours in timed),
        peer_name="our own network, compiled",
        ratio=ratio,
        goal=f">= {GOAL}",
        holds=ratio >= GOAL,
        ratios=ratios,
        command=command("export_onnx", **({"run": run} if run else {}), rounds=rounds, batch=batch, steps=steps),
        **machine(),
    )
    if record:
        write("export_onnx", [row])


if __name__ == "__main__":
    words = dict(word.split("=", 1) for word in sys.argv[1:])
    given = {name: int(value) for name, value in words.items() if name in ("rounds", "batch", "steps")}
    main(run=words.get("run"), record=words.get("record") != "false", **given)
