"""What a config may build, and what it says when it may not."""

from __future__ import annotations

import sys

import pytest
from omegaconf import OmegaConf

from diffusion_art.config import MOVED, Described, _installed_parts, build, is_a, kind_of, literal, plain, unescaped
from diffusion_art.errors import UserError
from diffusion_art.sources.painter import Painter
from diffusion_art.training.terms.term import Term


@pytest.mark.parametrize("text", ["a", "${b}", r"\${b}", r"\\${b}", "$5 and ${x:", r"\n ${a} \\\${b}"])
def test_a_text_as_a_config_holds_it_is_read_back(text):
    assert unescaped(literal(text)) == text
    assert OmegaConf.create({"a": literal(text)}).a == text


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
        "torch.optim.lr_scheduler.LambdaLR",
        "torch.optim.os.system",
        "builtins.eval",
        "diffusion_art.cli.os.system",
        "diffusion_art.sources.folder.folder.Path",
        "diffusion_art.training.run.provenance.subprocess.run",
        "diffusion_art.training.build.build_trainer",
        "diffusion_art.training.memory.batch_size.find_batch_size",
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


@pytest.fixture
def own(monkeypatch, tmp_path):
    """A package of somebody's own, which imports what others define."""
    (tmp_path / "own_parts.py").write_text(
        "import os, shutil\nfrom torch.optim import AdamW\nfrom einops import rearrange\nclass Own:\n    pass\n"
    )
    (tmp_path / "own_broken.py").write_text("nothing_like_it")
    monkeypatch.syspath_prepend(str(tmp_path))
    return lambda parts: monkeypatch.setenv("DIFFUSION_ART_PARTS", parts)


def test_classes_of_ones_own_are_built_where_their_package_is_named(own):
    with pytest.raises(UserError, match=r"If you trust `own_parts`.*DIFFUSION_ART_PARTS=own_parts$"):
        build({"_target_": "own_parts.Own"})
    own(" own_parts,own_gone,own_broken")
    assert type(build({"_target_": "own_parts.Own"})).__name__ == "Own"
    assert build({"_target_": "own_parts.AdamW", "_partial_": True}).func.__name__ == "AdamW"
    for name, said in {
        "own_parts.os.system": r"not on the list[^$]*torch's optimisers\.$",
        "own_parts.shutil.rmtree": r"not on the list[^$]*torch's optimisers\.$",
        "own_parts.rearrange": r"trust `einops`.*=own_parts,own_gone,own_broken,einops$",
        "own_parts.Other": "does not exist: there is no `Other`",
        "own_gone.Part": r"no module `own_gone` on Python's path.*PYTHONPATH=",
        "own_broken.Part": r"`own_broken.Part` cannot be imported: NameError: name 'nothing_like_it' is not defined\.$",
    }.items():
        with pytest.raises(UserError, match=said):
            build({"_target_": name})


def test_an_installed_package_names_its_parts_itself(own, tmp_path):
    info = tmp_path / "own_parts-1.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: own-parts\nVersion: 1\n")
    (info / "entry_points.txt").write_text("[diffusion_art.parts]\nown = own_parts:Small\n")
    _installed_parts.cache_clear()
    try:
        assert type(build({"_target_": "own_parts.Own"})).__name__ == "Own"
    finally:
        _installed_parts.cache_clear()


def test_a_class_is_asked_what_it_is_and_not_recognised_by_its_path():
    assert is_a({"_target_": "diffusion_art.models.alignment.Alignment"}, Term)  # where it stood once
    assert is_a({"_target_": "diffusion_art.sources.painter.painter.Painter"}, Painter)
    assert not is_a({"_target_": "diffusion_art.sources.painter.Brief"}, Painter)
    assert not is_a({"_target_": "diffusion_art.sources.detect.open_source"}, Painter)
    assert not any(is_a(node, Term) for node in (None, 3, {}, {"alignment": 1}))
    painter = Described({"_target_": "diffusion_art.sources.painter.Painter", "count": 7})
    assert painter.kind.opens_at_once
    assert painter().count == 7


@pytest.mark.parametrize("old", MOVED)
def test_a_class_is_found_where_it_stood_before(old):
    assert kind_of({"_target_": old}).__module__.startswith("diffusion_art.")
    assert kind_of({"_target_": old}) is kind_of({"_target_": MOVED[old]})


def test_an_unknown_key_is_one_sentence_with_its_name():
    with pytest.raises(UserError, match="shfit"):
        build({"_target_": "diffusion_art.diffusion.schedules.Flow", "shfit": 2.0})


def test_a_missing_value_names_its_key():
    with pytest.raises(UserError, match=r"`data\.path` has no value.*data\.path="):
        plain(OmegaConf.create({"data": {"path": "???"}}))


class _Missing:
    """As if a library were not installed."""

    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] == "open_clip":
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)


@pytest.fixture
def unimported(monkeypatch):
    """open_clip and what imports it, as before anybody imported them."""
    for name in [name for name in sys.modules if name.startswith(("open_clip", "diffusion_art.models.clip"))]:
        monkeypatch.delitem(sys.modules, name)


CLIP = "diffusion_art.models.clip.Clip"


def test_a_missing_library_is_named_with_the_command_that_installs_it(unimported, monkeypatch):
    monkeypatch.setattr(sys, "meta_path", [_Missing(), *sys.meta_path])
    with pytest.raises(UserError, match=r"`open_clip`, which is not installed.*pip install open_clip_torch"):
        build({"_target_": CLIP})


def test_a_broken_library_is_named_with_what_it_says(unimported, monkeypatch, tmp_path):
    (tmp_path / "open_clip").mkdir()
    (tmp_path / "open_clip" / "__init__.py").write_text("from json import no_such_thing")
    monkeypatch.syspath_prepend(str(tmp_path))
    with pytest.raises(UserError, match=r"`open_clip` is broken here: ImportError.*no_such_thing.*force-reinstall"):
        build({"_target_": CLIP})


@pytest.mark.parametrize("target", ["diffusion_art.models.unet.UNt", "diffusion_art.models.unot.UNet"])
def test_a_wrong_name_does_not_exist(target):
    with pytest.raises(UserError, match=r"does not exist: there is no `(UNt|unot)` in"):
        build({"_target_": target})


@pytest.mark.parametrize(
    ("logger", "flags"),
    [
        ("TensorBoardLogger", ("_TENSORBOARD_AVAILABLE", "_TENSORBOARDX_AVAILABLE")),
        ("WandbLogger", ("_WANDB_AVAILABLE",)),
    ],
)
def test_a_tracker_that_is_not_installed_names_the_extra(logger, flags, monkeypatch, tmp_path):
    home = {
        "TensorBoardLogger": "lightning.fabric.loggers.tensorboard",
        "WandbLogger": "lightning.pytorch.loggers.wandb",
    }
    for flag in flags:
        monkeypatch.setattr(f"{home[logger]}.{flag}", False)
    with pytest.raises(UserError, match=r"needs a package that is not installed.*pip install -e '\.\[track\]'"):
        build({"_target_": f"lightning.pytorch.loggers.{logger}", "save_dir": str(tmp_path)})
