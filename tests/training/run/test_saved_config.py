from __future__ import annotations

from typing import Any

import pytest
from lightning.pytorch import LightningModule
from omegaconf import OmegaConf

from diffusion_art.training.build import build_trainer
from diffusion_art.training.run.saved_config import SavedConfig
from tests.training.run.test_limits import _settled


@pytest.mark.parametrize("words", [[], ["callbacks.report=null"]])
def test_every_run_has_a_config_yaml_that_reads_back_equal(words, tmp_path):
    settings = _settled("trainer.accelerator=cpu", *words)
    settings["paths"]["run_dir"] = str(tmp_path / "run")
    settings["prompts"] = ["costs ${five}", "a \\${b}", "${oc.env:HOME}", "${", "plain \\$"]
    module: Any = LightningModule()
    module.config = settings
    trainer = build_trainer(settings)
    (saved,) = (each for each in trainer.callbacks if isinstance(each, SavedConfig))  # pyright: ignore[reportAttributeAccessIssue]
    saved.on_fit_start(trainer, module)
    assert OmegaConf.to_container(OmegaConf.load(tmp_path / "run/config.yaml"), resolve=True) == settings
