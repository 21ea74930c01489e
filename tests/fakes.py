"""Small real things: a model, a checkpoint, a run folder, a CLIP. All are built as the real ones are."""

from __future__ import annotations

import json
from collections.abc import Sequence
from copy import deepcopy
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from diffusion_art.checkpoints import PREFIX
from diffusion_art.config import build
from diffusion_art.models.image_tower import ImageTower
from diffusion_art.models.text_to_image import TextToImage
from diffusion_art.record import FORMAT, KEY

SAMPLER_CONFIG = {"_target_": "diffusion_art.diffusion.samplers.euler.Euler", "num_steps": 3}
MODEL_CONFIG: dict[str, Any] = {
    "_target_": "diffusion_art.models.text_to_image.TextToImage",
    "image_size_px": 16,
    "backbone": {
        "_target_": "diffusion_art.models.unet.UNet",
        "_partial_": True,
        "block_channels": [8, 16],
        "layers_per_block": 1,
        "attention_sides": [4],
        "head_channels": 8,
        "norm_groups": 4,
    },
    "schedule": {"_target_": "diffusion_art.diffusion.schedules.Flow"},
    "prediction": {"_target_": "diffusion_art.diffusion.denoiser.Flow"},
    "text_encoder": {
        "_target_": "diffusion_art.models.text_encoder.OpenClipScratch",
        "width": 16,
        "layers": 1,
        "heads": 2,
        "vocab_size": 600,
        "context_length": 16,
    },
    "codec": {"_target_": "diffusion_art.models.codec.Unshuffle2"},
}
JIT_CONFIG: dict[str, Any] = {  # in place of the UNet: toy_model(backbone=JIT_CONFIG)
    "_target_": "diffusion_art.models.jit.JiT",
    "_partial_": True,
    "width": 16,
    "depth": 2,
    "head_channels": 8,
    "bottleneck": 8,
}


def toy_model(seed: int = 0, **changes: dict[str, Any]) -> TextToImage:
    """A 16 px model of some 30 thousand weights, every one of them random: also those that start at zero.

    `changes` replace parts of the config: `toy_model(text_encoder={...})`.
    """
    with torch.random.fork_rng([]):
        torch.manual_seed(seed)
        model = build(deepcopy(MODEL_CONFIG) | changes)
        for weight in model.parameters():
            if not weight.any():
                torch.nn.init.normal_(weight, std=0.1)
    return model.eval()


def write_checkpoint(
    path: Path, model: TextToImage, *, step: int = 5, config: dict[str, Any] | None = None, **ours: Any
) -> Path:
    """A checkpoint as training writes it; the averaged weights are half the raw ones, so that they can be told
    apart.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    raw = model.trainable_state()
    config = config or {
        "model": MODEL_CONFIG,
        "sampler": SAMPLER_CONFIG,
        "guidance_scale": 2.0,
        "prompts": ["red", "blue"],
    }
    part = {"format": FORMAT, "config": config, "ema": {k: v / 2 for k, v in raw.items()}, "step": step, **ours}
    torch.save({"state_dict": {PREFIX + name: value for name, value in raw.items()}, KEY: part}, path)
    return path


def toy_run(folder: Path, model: TextToImage | None = None, *, steps: tuple[int, ...] = (5,)) -> Path:
    """A run folder with checkpoints, metrics and one sample grid."""
    from diffusion_art.images import save_grid

    model = model or toy_model()
    checkpoints = folder / "checkpoints"
    for step in steps:
        write_checkpoint(checkpoints / f"step_{step:08d}.ckpt", model, step=step)
    (checkpoints / "last.ckpt").symlink_to(f"step_{steps[-1]:08d}.ckpt")
    (folder / "metrics.csv").write_text("step,train/loss,val/loss\n1,1.5,\n2,1.25,1.0\n")
    save_grid(torch.zeros(2, 3, 16, 16), ["red", "blue"], folder / "samples" / "step_00000005.png")
    return folder


def tiny_clip(folder: Path, *, seed: int = 0) -> Path:
    """A folder that open_clip reads as `local-dir:`: CLIP's tokenizer, a text tower of width 32, random weights."""
    from open_clip.model import CLIP

    folder.mkdir(parents=True, exist_ok=True)
    config = {
        "embed_dim": 24,
        "vision_cfg": {"image_size": 32, "layers": 1, "width": 16, "head_width": 8, "patch_size": 16},
        "text_cfg": {"context_length": 20, "vocab_size": 49408, "width": 32, "heads": 2, "layers": 2},
    }
    (folder / "open_clip_config.json").write_text(json.dumps({"model_cfg": config}))
    with torch.random.fork_rng([]):
        torch.manual_seed(seed)
        save_file(CLIP(**config).state_dict(), folder / "open_clip_model.safetensors")
    return folder


class SmallTower(ImageTower):
    """One random convolution over pictures of 12 px: a map of 6 features on a 3 x 3 grid. Counts its calls."""

    dim, side = 6, 3

    def __init__(self):
        super().__init__()
        with torch.random.fork_rng([]):
            torch.manual_seed(0)
            self.conv = nn.Conv2d(3, 6, 4, stride=4).requires_grad_(False)
        self.calls = 0
        self.seen = torch.empty(0)
        self.eval()

    def forward(self, images: Tensor) -> Tensor:
        self.calls += 1
        self.seen = self.conv(nn.functional.interpolate(images, size=(12, 12), mode="bilinear", antialias=True))
        return self.seen

    def describe(self) -> dict[str, Any]:
        return {"class": type(self).__name__}

    def maps(self, images: Tensor, layers: Sequence[int]) -> list[Tensor]:
        """Of one earlier layer, the pictures themselves at half their size."""
        return [*(nn.functional.avg_pool2d(images, 2) for _ in layers), self(images)]


def toy_vae(folder: Path, *, seed: int = 0, levels: int = 2, **settings: Any) -> Path:
    """A folder of diffusers' AutoencoderKL with random weights: 4 channels, sides halved between its `levels`."""
    from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL

    kind: Any = AutoencoderKL
    with torch.random.fork_rng([]):
        torch.manual_seed(seed)
        net = kind(
            down_block_types=("DownEncoderBlock2D",) * levels,
            up_block_types=("UpDecoderBlock2D",) * levels,
            block_out_channels=(8,) * levels,
            norm_num_groups=4,
            **settings,
        )
    net.save_pretrained(folder)
    return folder


def vae_config(folder: Path) -> dict[str, Any]:
    return {"_target_": "diffusion_art.models.vae.Vae", "path": str(folder)}


def tiny_transformer(folder: Path, kind: str = "bert", *, seed: int = 0) -> Path:
    """A folder of transformers with random weights and a tokenizer of few words: bert, t5, qwen3 or clip."""
    import transformers
    from tokenizers import Tokenizer, models, pre_tokenizers, processors

    words = [
        "[PAD]",
        "[UNK]",
        "[CLS]",
        "[SEP]",
        *["a", "x", "red", "blue", "green", "house", "of", "planes", "caption"],
    ]
    tokenizer: Any = Tokenizer(models.WordLevel({word: place for place, word in enumerate(words)}, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    if kind != "qwen3":  # which marks no ends
        ends = [("[CLS]", 2), ("[SEP]", 3)]
        tokenizer.post_processor = processors.TemplateProcessing(single="[CLS] $A [SEP]", special_tokens=ends)
    named = {"pad_token": "[PAD]", "eos_token": "[SEP]", "unk_token": "[UNK]"}
    transformers.PreTrainedTokenizerFast(tokenizer_object=tokenizer, **named).save_pretrained(folder)
    with torch.random.fork_rng([]):
        torch.manual_seed(seed)
        _tiny_tower(kind, vocab_size=len(words)).save_pretrained(folder)
    return folder


def _tiny_tower(kind: str, *, vocab_size: int) -> Any:
    import transformers

    narrow = {"vocab_size": vocab_size, "hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2}
    heads: dict[str, Any] = {**narrow, "num_attention_heads": 2, "max_position_embeddings": 40}
    if kind == "t5":
        sizes: dict[str, Any] = {"d_model": 16, "d_kv": 8, "d_ff": 32, "num_layers": 2, "num_heads": 2}
        return transformers.T5ForConditionalGeneration(transformers.T5Config(vocab_size=vocab_size, **sizes))
    if kind == "qwen3":
        return transformers.Qwen3ForCausalLM(transformers.Qwen3Config(**heads, num_key_value_heads=1, head_dim=8))
    if kind == "clip":
        ends = {"eos_token_id": 3, "bos_token_id": 2, "pad_token_id": 0, "projection_dim": 12}
        return transformers.CLIPTextModelWithProjection(transformers.CLIPTextConfig(**heads, **ends))
    return transformers.BertModel(transformers.BertConfig(**heads))


def transformers_config(folder: Path, **settings: Any) -> dict[str, Any]:
    target = "diffusion_art.models.transformers_text.Transformers"
    return {"_target_": target, "path": str(folder), "context_length": 16, **settings}
