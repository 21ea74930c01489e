"""The judge of protocol 1.0: EIR's own `eirtrain`, with its tutorial's diffusion configs scaled down, at our server.

It needs a Python of its own (3.13 for the versions tried, 0.23 and 0.25), so it is looked for in $EIRTRAIN, in
`.venv-eir` here, and on the path:

    python3.13 -m venv .venv-eir && .venv-eir/bin/pip install eir-dl==0.25.0
"""

import os
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from diffusion_art.shards.mixture import open_shards
from diffusion_art.streaming.server.process import ServerProcess
from diffusion_art.streaming.server.settings import Settings
from tests.conftest import ROOT
from tests.streaming.eir.serving import eir

EIRTRAIN = os.environ.get("EIRTRAIN") or shutil.which(ROOT / ".venv-eir/bin/eirtrain") or shutil.which("eirtrain")
BATCH, VALIDATION, SETUP, EPOCHS = 8, 16, 48, 2


def configs(url: str, folder: Path, *, num_workers: int) -> dict[str, dict[str, Any]]:
    """EIR's tutorial "Scaling Diffusion: Image Generation from Text", but small, quick and without attention."""
    size = {"adaptive_normalization_max_samples": SETUP, "mode": "RGB", "size": [16, 16]}
    narrow = {
        "channel_exp_base": 2,
        "kernel_width": 3,
        "kernel_height": 3,
        "down_stride_width": 1,
        "down_stride_height": 1,
        "first_stride_expansion_width": 1,
        "first_stride_expansion_height": 1,
        "allow_first_conv_size_reduction": False,
        "down_sample_every_n_blocks": 1,
        "layers": [1, 1],
    }

    def source(name: str, kind: str, end: str) -> dict[str, str]:
        return {f"{end}_source": url, f"{end}_name": name, f"{end}_type": kind}

    return {
        "global": {
            "basic_experiment": {
                "batch_size": BATCH,
                "dataloader_workers": num_workers,
                "memory_dataset": False,
                "n_epochs": 20,
                "output_folder": str(folder / "run"),
                "valid_size": VALIDATION,
            },
            "evaluation_checkpoint": {"checkpoint_interval": 10, "n_saved_models": 1, "sample_interval": 10},
            "data_preparation": {"streaming_setup_samples": SETUP},
            "optimization": {"lr": 1e-4, "optimizer": "adamw", "wd": 1e-4, "gradient_clipping": 1.0},
            "lr_schedule": {"warmup_steps": 2, "lr_plateau_patience": 16},
            "training_control": {"early_stopping_patience": 32},
            "visualization_logging": {"plot_skip_steps": 5000},
            "accelerator": {"hardware": "cpu", "devices": 1},
        },
        "input_image": {
            "input_info": source("image", "image", "input"),
            "input_type_info": {**size, "auto_augment": False},
            "model_config": {"model_type": "cnn", "model_init_config": narrow},
        },
        "input_caption": {
            "input_info": source("caption", "sequence", "input"),
            "input_type_info": {"max_length": 16, "split_on": " ", "min_freq": 2},
            "model_config": {"embedding_dim": 16, "model_init_config": {"num_layers": 1}},
        },
        "fusion": {"model_type": "pass-through"},
        "output": {
            "output_info": source("image", "image", "output"),
            "output_type_info": {**size, "loss": "diffusion", "diffusion_time_steps": 10},
            "sampling_config": {"diffusion_inference_steps": 2, "diffusion_sampler": "ddim"},
            "model_config": {
                "model_type": "cnn",
                "model_init_config": {"channel_exp_base": 3, "allow_pooling": True},
            },
        },
    }


@pytest.mark.slow
@pytest.mark.network
@pytest.mark.skipif(EIRTRAIN is None, reason="no eirtrain here; see the head of this file for how to get it")
@pytest.mark.parametrize("num_workers", [0, 2, 8])
def test_eirtrain_trains_from_our_server(painter_shards: Path, tmp_path: Path, num_workers: int):
    assert EIRTRAIN is not None
    samples = open_shards(painter_shards).splits["train"]
    with ServerProcess(painter_shards, settings=Settings(eir_epochs=EPOCHS)) as server, eir(server.url) as watcher:
        files = {name: tmp_path / f"{name}.yaml" for name in configs(server.url, tmp_path, num_workers=num_workers)}
        for name, content in configs(server.url, tmp_path, num_workers=num_workers).items():
            files[name].write_text(yaml.safe_dump(content))
        command = [EIRTRAIN, "--global_configs", files["global"], "--fusion_configs", files["fusion"]]
        command += ["--input_configs", files["input_image"], files["input_caption"]]
        command += ["--output_configs", files["output"]]
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": ""}
        done = subprocess.run(
            command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=300, check=False
        )
        assert done.returncode == 0, done.stderr[-3000:]
        status = watcher.ask("status")["payload"]
    assert "Traceback" not in done.stderr
    assert status["validation_ids_count"] == VALIDATION
    assert status["current_position"] == EPOCHS * samples
    # All samples but those of validation, in whole batches of each worker.
    steps = max(int(step) for step in re.findall(r"\[(\d+)/\?\]", done.stderr + done.stdout))
    most = EPOCHS * (samples - VALIDATION) // BATCH
    assert most - max(1, num_workers) <= steps <= most
    assert list((tmp_path / "run").rglob("*_generated.png"))
    assert list((tmp_path / "run/saved_models").iterdir())
