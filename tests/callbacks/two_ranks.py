"""A process of a run that was started with a rate of its own: `torchrun --nproc-per-node 2 two_ranks.py FOLDER WORDS`.

Leaves the sentence with which it was refused, or what its weights came to.
"""

from __future__ import annotations

import hashlib
import os
import sys
from pathlib import Path

from hydra import compose, initialize_config_dir

from diffusion_art.config import config_dir
from diffusion_art.errors import UserError
from diffusion_art.launching.fit import quieten
from diffusion_art.launching.settle import settle
from diffusion_art.training.build import build_datamodule, build_module, build_trainer


def main(folder: Path, words: list[str]) -> None:
    rank = int(os.environ["RANK"])
    with initialize_config_dir(str(config_dir()), version_base="1.3"):
        settings = settle(compose("train", overrides=[*words, f"optim.lr={(1 + rank) * 1e-3}"]), folder / "run")
    quieten()
    module = build_module(settings)
    try:
        build_trainer(settings).fit(module, datamodule=build_datamodule(settings))
    except UserError as error:
        (folder / f"refused_{rank}").write_text(str(error))
        sys.exit(1)
    digest = hashlib.sha256(b"".join(value.numpy().tobytes() for value in module.model.trainable_state().values()))
    (folder / f"weights_{rank}").write_text(digest.hexdigest())


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2:])
