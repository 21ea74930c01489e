"""`init_from=FOLDER`: training that starts from a UNet of diffusers."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from diffusers import UNet2DConditionModel
from safetensors.torch import load_file, save_file

from diffusion_art.checkpoints import PREFIX
from diffusion_art.config import build
from diffusion_art.errors import UserError
from diffusion_art.models.unet_from_diffusers import load_from_diffusers, unet_arguments
from tests.fakes import MODEL_CONFIG, toy_model, toy_run

SHAPE = {
    "sample_size": 8,
    "in_channels": 12,
    "out_channels": 12,
    "block_out_channels": (16, 32, 48),
    "layers_per_block": (1, 2, 1),
    "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
    "mid_block_type": "UNetMidBlock2DCrossAttn",
    "up_block_types": ("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
    "attention_head_dim": (1, 2, 3),
    "use_linear_projection": True,
    "cross_attention_dim": 16,
    "class_embed_type": "projection",
    "projection_class_embeddings_input_dim": 16,
    "resnet_time_scale_shift": "scale_shift",
    "norm_num_groups": 8,
}


def folder_of(path: Path, **changes) -> Path:
    """What diffusers writes."""
    torch.manual_seed(0)
    UNet2DConditionModel(**(SHAPE | changes)).save_pretrained(path)
    return path


def model_from(folder: Path, **parts):
    """The toy model in the folder's shape, with its weights."""
    model = toy_model(backbone=MODEL_CONFIG["backbone"] | unet_arguments(folder, sample_size=8), **parts)
    load_from_diffusers(model, folder)
    return model


def test_any_shape_of_ours_is_found_again_and_answers_the_same(tmp_path):
    folder = folder_of(tmp_path / "unet")
    arguments = unet_arguments(folder, sample_size=16)
    assert arguments == {
        "block_channels": [16, 32, 48],
        "layers_per_block": [1, 2, 1],
        "attention_sides": [8, 4],
        "head_channels": 16,
        "norm_groups": 8,
    }
    model = model_from(folder)
    theirs = UNet2DConditionModel.from_pretrained(folder).eval()
    x_t, t, cond = torch.randn(2, 12, 8, 8), torch.tensor([0.2, 0.9]), model.encode_captions(["red", "a sea"])
    told = {"encoder_hidden_states": cond.tokens, "encoder_attention_mask": cond.mask, "class_labels": cond.pooled}
    with torch.no_grad():
        torch.testing.assert_close(
            theirs(x_t, 1000 * t, **told).sample, model.backbone(x_t, t, cond), atol=1e-4, rtol=1e-4
        )


def test_weights_in_several_files_and_of_a_variant_are_read_and_pickles_are_not(tmp_path):
    folder = folder_of(tmp_path / "unet")
    whole = folder / "diffusion_pytorch_model.safetensors"
    weights = load_file(whole)
    names = sorted(weights)
    whole.rename(folder / "diffusion_pytorch_model.bin")
    for variant in ("", ".fp16"):
        for number, part in enumerate((names[:40], names[40:]), 1):
            split = folder / f"diffusion_pytorch_model{variant}-0000{number}-of-00002.safetensors"
            save_file({name: weights[name] for name in part}, split)
        save_file({}, folder / "diffusion_pytorch_model.non_ema.safetensors")
        model = model_from(folder)
        assert torch.equal(model.backbone.net.conv_in.weight, weights["conv_in.weight"])
        for split in folder.glob("*.safetensors"):
            split.unlink()
    with pytest.raises(UserError, match=r"but diffusion_pytorch_model\.bin, and only safetensors are read"):
        model_from(folder)


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({"in_channels": 4}, r"in_channels=4, and this run's has in_channels=12 \(the codec's"),
        (
            {"cross_attention_dim": 32},
            r"cross_attention_dim=32, and this run's has cross_attention_dim=16 \(that of the",
        ),
        (
            {"projection_class_embeddings_input_dim": 24},
            "projection_class_embeddings_input_dim=24, and this run's has projection_class_embeddings_input_dim=16",
        ),
        (
            {"class_embed_type": None, "projection_class_embeddings_input_dim": None},
            "class_embed_type=None, and this run's has class_embed_type=projection",
        ),
        (
            {"resnet_time_scale_shift": "default"},
            "resnet_time_scale_shift=default, and this run's has resnet_time_scale_shift=scale_shift",
        ),
        ({"attention_head_dim": (1, 4, 1)}, r"attention_head_dim=\[1, 4, 1\] heads on levels of \[16, 32, 48\]"),
        ({"act_fn": "gelu"}, "act_fn=gelu, and this run's has act_fn=silu"),
    ],
)
def test_what_does_not_fit_is_named_with_both_values(tmp_path, changes, complaint):
    folder = folder_of(tmp_path / "unet", **changes)
    with pytest.raises(UserError, match=complaint):
        model_from(folder)


def test_a_folder_of_something_else(tmp_path):
    with pytest.raises(UserError, match=r"is no folder of diffusers: its config\.json cannot be read"):
        unet_arguments(tmp_path, sample_size=8)
    with pytest.raises(UserError, match="of the hub is downloaded first: hf download NAME --local-dir FOLDER"):
        unet_arguments(Path("runwayml/stable-diffusion-v1-5"), sample_size=8)
    with pytest.raises(UserError, match=r"export run=last\.ckpt format=diffusers path=PIPELINE"):
        unet_arguments(Path("last.ckpt"), sample_size=8)
    (tmp_path / "config.json").write_text(json.dumps({"_class_name": "AutoencoderKL"}))
    with pytest.raises(UserError, match="describes _class_name=AutoencoderKL, and a run can start from UNet2D"):
        unet_arguments(tmp_path, sample_size=8)


@pytest.fixture
def train(painter_shards, run_here):
    def run(*words: str) -> tuple[int, str, str]:
        tiny = ["+experiment=quickstart32", "+debug=tiny", "callbacks.progress=null", "callbacks.samples=null"]
        few = ["trainer.max_steps=1", "trainer.val_check_interval=0", "alignment=none", "data.num_workers=0"]
        data = ["data.source=null", f"data.path={painter_shards}", "data.url=shards"]
        return run_here("train", *tiny, *few, *data, "optim=adamw", "optim.lr=1e-12", "run=from", *words)

    return run


@pytest.mark.slow
def test_a_run_starts_where_an_exported_pipeline_ended(train, run_here, tmp_path):
    pytest.importorskip("transformers")
    run = toy_run(tmp_path / "logs" / "toy" / "first")
    shared = tmp_path / "shared"
    assert run_here("export", f"run={run}", "format=diffusers", f"path={shared}")[0] == 0
    status, said, complaints = train(f"init_from={shared}")
    assert status == 0, said + complaints
    assert "starting from the UNet of" in said
    saved = torch.load(tmp_path / "logs" / "tiny" / "from" / "checkpoints" / "last.ckpt", weights_only=True)
    begun = {name: value / 2 for name, value in toy_model().trainable_state().items()}  # of the average, as exported
    for name, value in begun.items():
        torch.testing.assert_close(saved["state_dict"][PREFIX + name], value, atol=1e-6, rtol=1e-5)
    backbone = saved["diffusion_art"]["config"]["model"]["backbone"]
    assert backbone["block_channels"] == [8, 16]
    assert build(saved["diffusion_art"]["config"]["model"]).text_encoder.tokenizer.vocab_size == 600
    shared.rename(tmp_path / "gone")
    status, said, complaints = train(f"init_from={shared}", "ckpt_path=last", "trainer.max_steps=2")
    assert status == 0, said + complaints
    last = torch.load(tmp_path / "logs" / "tiny" / "from" / "checkpoints" / "last.ckpt", weights_only=True)
    assert (last["global_step"], last["diffusion_art"]["config"]["model"]["backbone"]) == (2, backbone)


def test_what_a_run_says_to_a_folder_that_is_not_its_own(train, tmp_path):
    folder = folder_of(tmp_path / "unet", cross_attention_dim=24)

    def complaint(*words: str) -> str:
        status, _, complaints = train(f"init_from={folder}", *words)
        assert status == 1
        return complaints

    assert "cross_attention_dim=24, and this run's has cross_attention_dim=32" in complaint()
    jit = "model.backbone._target_=diffusion_art.models.jit.JiT"
    assert "is a UNet, and model.backbone a JiT: model/backbone=unet_tiny." in complaint(jit)
    assert "has model.backbone.norm_groups=8, and model.backbone.norm_groups=4 was asked for" in complaint(
        "model.backbone.norm_groups=4"
    )
