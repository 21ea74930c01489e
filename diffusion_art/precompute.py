"""Command: latents, text states and image features of a run's shards, computed once with the networks that the run
would ask.

It takes the words of the training, whatever they are:

python -m diffusion_art.precompute data.path=data/paintings-128px model/codec=vae model.codec.path=folders/sdxl-vae
python -m diffusion_art.train data.path=data/paintings-128px model/codec=vae model.codec.path=folders/sdxl-vae \
    data.payload=latents
"""

from __future__ import annotations

from diffusion_art.extras import check_extra

check_extra("paint")

from omegaconf import DictConfig
from rich.console import Console

from diffusion_art.cli import command
from diffusion_art.config import plain
from diffusion_art.devices import pick_device
from diffusion_art.launching import names
from diffusion_art.shards.build.build import check_settings
from diffusion_art.shards.build.engine import LocalEngine, engine_named
from diffusion_art.shards.places import components_of
from diffusion_art.training.precompute.precomputing import Encoders, chosen, precompute
from diffusion_art.training.run.run_shards import shards_of

names.register()


@command("precompute")
def main(config: DictConfig) -> None:
    """Write what is missing beside the shards of the run, and say how to train on it."""
    settings = plain(config)
    check_settings({"workers": settings["workers"]})
    device = pick_device(settings["device"])
    engine = engine_named(settings["engine"], workers=settings["workers"], ray=settings["ray"])
    if engine == LocalEngine() and device != "cpu":
        engine = LocalEngine(workers=1)  # one process keeps a GPU busy
    tower = (settings.get("alignment") or {}).get("tower")
    what = chosen(settings["what"], settings["model"], tower=tower, features=settings["data"]["image_features"])
    spec = shards_of(settings["data"], settings["paths"]["data_dir"]).ready()
    encoders = Encoders(settings["model"], what, device, tower)
    for component in components_of(spec):
        for line in precompute(component, encoders, engine, progress=settings["progress"]):
            _say(line)
    keys = {"latents": "data.payload=latents", "text": "data.text_states=true", "features": "data.image_features=true"}
    _say(f"train with the same words and {' '.join(keys[kind] for kind in what)}")


def _say(line: str) -> None:
    Console().print(line, soft_wrap=True, markup=False, highlight=False)


if __name__ == "__main__":
    main()
