"""What a config may build, and what it says when it may not."""

from __future__ import annotations

import pytest
from omegaconf import OmegaConf

from diffusion_art.config import build, plain
from diffusion_art.errors import UserError


def test_builds_our_own_and_listed_classes():
    assert build({"_target_": "diffusion_art.diffusion.schedules.Flow", "shift": 2.0}).shift == 2.0
    optimizer = build({"_target_": "torch.optim.AdamW", "_partial_": True, "lr": 0.5})
    assert optimizer.keywords == {"lr": 0.5}


@pytest.mark.parametrize(
    "target",
    [
        "os.system",
        "torch.load",
        "torch.hub.load",
        "builtins.eval",
        "diffusion_art.cli.os.system",
        "diffusion_art.data.build.Path",
        "diffusion_art.training.provenance.subprocess.run",
        "diffusion_art.models.unet.UNet.__init__",
        "lightning.pytorch.callbacks.checkpoint.os.system",
        "diffusion_art.checkpoints.load_text_to_image",
    ],
)
def test_refuses_everything_else(target, tmp_path):
    canary = tmp_path / "canary"
    with pytest.raises(UserError, match=r"not on the list|does not exist"):
        build({"nested": [{"_target_": target, "_args_": [f"touch {canary}"]}]})
    assert not canary.exists()


def test_an_unknown_key_is_one_sentence_with_its_name():
    with pytest.raises(UserError, match="shfit"):
        build({"_target_": "diffusion_art.diffusion.schedules.Flow", "shfit": 2.0})


def test_a_missing_value_names_its_key():
    with pytest.raises(UserError, match=r"`data\.path` has no value.*data\.path="):
        plain(OmegaConf.create({"data": {"path": "???"}}))
