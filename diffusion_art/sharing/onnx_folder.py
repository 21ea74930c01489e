"""A model as ONNX: two networks, the tokenizer's files, and how to paint with them in plain numbers.

    denoiser.onnx      x_t [b c h w], clock [b] in [0, 1], tokens [b l d], mask [b l], pooled [b p] -> out [b c h w]
    text_encoder.onnx  ids [b context_length], mask [b context_length] -> tokens [b context_length d], pooled [b p]
    vocab.json merges.txt painting.json README.md

b and l may be any number. Both networks are run by onnxruntime before the folder is there, and must answer as torch
does. `examples/onnx_paint.py` paints with it.
"""

from __future__ import annotations

import json
import logging
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from rich.progress import track
from torch import Tensor, nn

from diffusion_art.errors import UserError
from diffusion_art.models.text_encoder import OpenClipPretrained
from diffusion_art.models.tokenizer import mask_of
from diffusion_art.sharing.folder import new_folder, told_in, write_cards, write_tokenizer
from diffusion_art.sharing.painting import Painting
from diffusion_art.sharing.table import painting_table
from diffusion_art.tensors import Conditioning

log = logging.getLogger(__name__)

CLOSE = 1e-3  # how far onnxruntime's answers may be from torch's
TABLE = "painting.json"
PARTS = ("denoiser.onnx", "text_encoder.onnx", "vocab.json", "merges.txt", TABLE)


class Denoiser(nn.Module):
    """A backbone that takes its conditioning as tensors."""

    def __init__(self, backbone: nn.Module) -> None:
        super().__init__()
        self.backbone = backbone

    def forward(self, x_t: Tensor, clock: Tensor, tokens: Tensor, mask: Tensor, pooled: Tensor) -> Tensor:
        return self.backbone(x_t, clock, Conditioning(tokens, mask, pooled))


class TextEncoderNetwork(nn.Module):
    """Ids to token states and the pooled vector."""

    def __init__(self, encoder: Any) -> None:
        super().__init__()
        self.frozen = isinstance(encoder, OpenClipPretrained)
        self.tower = encoder.tower if isinstance(encoder, OpenClipPretrained) else encoder

    def forward(self, ids: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        if self.frozen:
            pooled, tokens = self.tower(ids)
            return tokens, pooled
        cond = self.tower(ids, mask)
        return cond.tokens, cond.pooled


@dataclass(frozen=True)
class Part:
    """A network, what it is called with, and which axes of that may have any length."""

    network: nn.Module
    inputs: dict[str, Tensor]
    lengths: dict[str, dict[int, str]]
    outputs: tuple[str, ...]
    most: dict[str, int]  # of rows b and tokens l, while it is written

    def fewer(self) -> dict[str, Tensor]:
        """The inputs at other lengths: one row, and half of the tokens where that is free."""
        return {
            name: value[:1, : value.shape[1] // 2] if 1 in self.lengths[name] else value[:1]
            for name, value in self.inputs.items()
        }


def write_onnx(path: Path, painting: Painting) -> Path:
    """The folder.

    Raises:
        UserError: onnxruntime answers otherwise than torch, a sampler that is no table, another precision than
            float32, or `path` holds something else.
    """
    if painting.dtype != torch.float32:
        raise UserError("format=onnx is written in fp32, and onnxruntime rounds it as asked: drop dtype.")
    if painting.vae:
        raise UserError("format=onnx has no place for the decoder of a VAE: take format=diffusers or format=file.")
    table = painting_table(painting)
    former = {"calls", "latents"} <= told_in(path / TABLE).keys()
    with new_folder(path, former=former, parts=PARTS) as folder:
        parts = _parts(painting)
        for name in track(parts, "writing ONNX", disable=not sys.stderr.isatty(), transient=True):
            file = folder / f"{name}.onnx"
            write_network(file, parts[name])
            apart = max(_apart(file, parts[name], inputs) for inputs in (parts[name].inputs, parts[name].fewer()))
            if not apart <= CLOSE:
                raise UserError(f"onnxruntime's {name} is {apart:.2g} from torch's, more than {CLOSE:g}: not written.")
            log.info("%s: %.1f MB, at most %.1e from torch", file.name, file.stat().st_size / 1e6, apart)
        write_tokenizer(folder, painting.tokenizer)
        (folder / TABLE).write_text(json.dumps(table, indent=1) + "\n")
        write_cards(folder, painting, library="onnx", how=_how(painting, path.name))
    return path


@torch.no_grad()
def _parts(painting: Painting) -> dict[str, Part]:
    """Both networks, with inputs as in painting."""
    model = painting.model
    encoder, tokenizer = model.text_encoder, painting.tokenizer
    prompts = [painting.prompts[0], "", "a sea"]
    rows = [tokenizer.ids(prompt) for prompt in prompts]
    length = encoder.context_length
    ids = torch.tensor([row + [tokenizer.pad_id] * (length - len(row)) for row in rows])
    mask = mask_of(torch.tensor([len(row) for row in rows]), length)
    text = TextEncoderNetwork(encoder).eval()
    tokens, pooled = text(ids, mask)
    noise = torch.randn(len(prompts), *model.latent_shape, generator=torch.Generator().manual_seed(0))
    seen = {"x_t": noise, "clock": torch.tensor([0.9, 0.5, 0.1]), "tokens": tokens, "mask": mask, "pooled": pooled}
    one = {name: {0: "b"} for name in ("x_t", "clock", "pooled", "ids")}
    both, most = {name: {0: "b", 1: "l"} for name in ("tokens", "mask")}, {"b": 256, "l": length}
    asked = {"ids": ids, "mask": mask}
    return {
        "text_encoder": Part(text, asked, {**one, "mask": {0: "b"}}, ("tokens", "pooled"), most),
        "denoiser": Part(Denoiser(model.backbone).eval(), seen, {**one, **both}, ("out",), most),
    }


def write_network(file: Path, part: Part) -> None:
    """One network as one file."""
    dims = {letter: torch.export.Dim(letter, min=2, max=most) for letter, most in part.most.items()}
    shapes = {name: {axis: dims[letter] for axis, letter in part.lengths[name].items()} for name in part.inputs}
    names: dict[str, Any] = {"input_names": list(part.inputs), "output_names": list(part.outputs)}
    with _quiet(), torch.no_grad():
        exported = torch.export.export(part.network, (), kwargs=part.inputs, dynamic_shapes=shapes)
        program = torch.onnx.export(exported, **names, dynamo=True, verbose=False)
        assert program is not None
        scale_once(program.model)
        for node in program.model.graph.all_nodes():
            node.metadata_props.clear()  # the lines of code behind each, with the folders of this machine
            for value in node.outputs:
                value.metadata_props.clear()
        program.save(file, external_data=False)


def scale_once(model: Any) -> None:
    """(normed * weight + bias) * scale + shift, with fixed weight and bias, goes over each map twice, not four times.

    What is left, normed * (weight * scale) + (bias * scale + shift), has its other products on a number a channel.
    """
    from onnxscript.rewriter import RewriteRule, RewriteRuleSet

    def four_times(op: Any, normed: Any, weight: Any, bias: Any, scale: Any, shift: Any) -> Any:
        return op.Add(op.Mul(op.Add(op.Mul(normed, weight), bias), scale), shift)

    def twice(op: Any, normed: Any, weight: Any, bias: Any, scale: Any, shift: Any) -> Any:
        return op.Add(op.Mul(normed, op.Mul(weight, scale)), op.Add(op.Mul(bias, scale), shift))

    def fixed(_: Any, weight: Any, bias: Any, **__: Any) -> bool:
        return weight.const_value is not None and bias.const_value is not None

    RewriteRuleSet([RewriteRule(four_times, twice, fixed)]).apply_to_model(model)


@torch.no_grad()
def _apart(file: Path, part: Part, inputs: dict[str, Tensor]) -> float:
    """The largest difference between onnxruntime's answers and torch's, over the size of the latter."""
    import onnxruntime

    session = onnxruntime.InferenceSession(file, providers=["CPUExecutionProvider"])
    taken = {one.name for one in session.get_inputs()}
    theirs = session.run(None, {name: value.numpy() for name, value in inputs.items() if name in taken})
    ours = part.network(**inputs)
    pairs = zip(theirs, [ours] if isinstance(ours, Tensor) else ours, strict=True)
    return max((torch.from_numpy(a) - b).abs().max().item() / max(1.0, b.abs().max().item()) for a, b in pairs)


@contextmanager
def _quiet() -> Iterator[None]:
    """torch's exporter and what it calls tell of each step, and of their own deprecations."""
    loggers = [logging.getLogger(name) for name in ("torch", "onnxscript", "onnx_ir")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)


def _how(painting: Painting, folder: str) -> list[str]:
    prompt = painting.prompts[0].replace('"', "'")
    return [
        "With onnxruntime, numpy and pillow, by `examples/onnx_paint.py` of diffusion_art, a script of 60 lines:",
        "",
        "```sh",
        f'python onnx_paint.py {folder} "{prompt}" --seed 0 --out picture.png',
        "```",
    ]
