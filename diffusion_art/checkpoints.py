"""Checkpoints: finding the right file, and making a `TextToImage` of it.

A checkpoint is a Lightning one that `torch.load(weights_only=True)` reads. `state_dict` holds the raw
trainable weights, their names beginning with `model.`; under `diffusion_art` stands a `Record` (`record.py`), so the
file alone is enough to paint. Frozen text encoders, and a VAE of the hub, are named, not copied; one that lay in a
folder is in it. A file that ends in .safetensors is a model
exported from one (`exported.py`), and read as a checkpoint with these weights.
"""

from __future__ import annotations

import hashlib
import logging
import pickle
import re
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from diffusion_art.config import build, class_of
from diffusion_art.errors import UserError, first_line
from diffusion_art.exported import SUFFIX, read_about, read_exported
from diffusion_art.models.text_to_image import TextToImage
from diffusion_art.models.trainable import Trainable
from diffusion_art.models.vae import Vae
from diffusion_art.record import TRAIN_ONE, Record
from diffusion_art.shared_checkpoint import PLAIN, is_shared_checkpoint, read_plain_part, read_shared, shared_id

log = logging.getLogger(__name__)

POSTHOC = "posthoc_"  # how the names of checkpoints begin that no training wrote: averages made afterwards
PREFIX = "model."  # of the raw weights' names in state_dict


def load_text_to_image(path: str | Path, *, weights: str = "ema", device: str | torch.device = "cpu") -> TextToImage:
    """The model of a checkpoint, exported or not, of a run folder (its newest) or of a folder of runs (the newest).

    `weights` are `ema`, the averaged ones, `raw`, those the optimiser held, or a further average that the checkpoint
    holds, by name.

    Raises:
        UserError: nothing there, a truncated file, another program's or version's, or another text encoder.
    """
    found = find_checkpoint(path)
    return model_of(read_checkpoint(found), weights=weights, origin=found).to(device)


def model_of(checkpoint: dict[str, Any], *, weights: str, origin: str | Path) -> TextToImage:
    """The model that a checkpoint read from `origin` describes, in eval mode on the CPU."""
    record = Record.of(checkpoint, origin=origin)
    chosen = weights_of(checkpoint, weights, origin=origin)
    check_paints(record, origin)
    model = build_model(record.config["model"], codec=record.codec)
    _check_text_encoder(model, record.text_encoder, origin)
    check_codec(model, record.codec, origin)
    model.load_trainable_state(chosen)
    return model.eval()


def check_paints(record: Record, origin: str | Path) -> None:
    """UserError where what was trained is no text-to-image model."""
    kind = class_of(record.config["model"])
    if issubclass(kind, TextToImage):
        return
    if issubclass(kind, Trainable):
        raise UserError(f"{origin} is {kind.called}, which paints nothing by itself; {kind.use}.")
    raise UserError(f"{origin} describes a {kind.__name__}, not a text-to-image model.")


def build_model(node: Mapping[str, Any], *, codec: Mapping[str, Any] | None = None) -> TextToImage:
    """The model of a config, random where it is trained. Of the weights of a `codec` that a checkpoint holds the codec
    is made; its folder need not be there.
    """
    if not codec or "weights" not in codec:
        return build(dict(node))
    held = Vae.of_checkpoint(codec, node["codec"])
    return build({**{key: value for key, value in node.items() if key != "codec"}, "_partial_": True})(codec=held)


def held_codec(path: str | Path, node: Mapping[str, Any]) -> dict[str, Any] | None:
    """What the checkpoint at `path` holds of the codec that a model's config asks for, if it is that one."""
    record = Record.of(read_checkpoint(find_checkpoint(path)), origin=path)
    return record.codec if record.config["model"].get("codec") == node.get("codec") else None


def check_codec(model: TextToImage, trained_with: Mapping[str, Any] | None, origin: str | Path) -> None:
    """UserError where a checkpoint was trained on the latents of other weights than the model's codec has here."""
    here = model.codec.describe()
    if trained_with and here and here["sha256"] != trained_with["sha256"]:
        place = trained_with.get("path") or "a folder"
        raise UserError(
            f"{origin} was trained on latents of the VAE of {place}, weights {trained_with['sha256'][:12]}; those "
            f"found here are {here['sha256'][:12]}. Give it the same: model.codec.path=..."
        )


def weights_of(checkpoint: dict[str, Any], weights: str, *, origin: str | Path) -> dict[str, torch.Tensor]:
    """The weights of that name, by the names of the model's parameters.

    Raises:
        UserError: the checkpoint, read from `origin`, has none of that name.
    """
    record = Record.of(checkpoint, origin=origin)
    raw = {name.removeprefix(PREFIX): value for name, value in checkpoint["state_dict"].items()}
    held = {"ema": record.ema, **({"raw": raw} if raw else {}), **(record.averages or {})}
    if record.ema_name:
        held[record.ema_name] = record.ema
    if weights not in held:
        raise UserError(f"weights={weights} are not in {origin}; it has {', '.join(held)}.")
    return held[weights]


def read_checkpoint(path: str | Path) -> dict[str, Any]:
    """The content of a checkpoint file, checked to be ours; tensors stay in the file until they are used.

    Raises:
        UserError: not there, truncated, holding more than plain data, or of another program or version.
    """
    path = Path(path).expanduser()
    if not _is_one(path):
        raise UserError(f"there is no checkpoint at {path}. {TRAIN_ONE}")
    checkpoint = read_exported(path) if path.suffix == SUFFIX else _read_ours(path)
    Record.of(checkpoint, origin=path)
    return checkpoint


def read_plain(path: str | Path) -> dict[str, Any]:
    """As `read_checkpoint`, without the tensors of a folder that processes wrote: its step and config come at once.

    Raises:
        UserError: as there.
    """
    path = Path(path).expanduser()
    return _read_ours(path, tensors=False) if path.is_dir() else read_checkpoint(path)


def _read_ours(path: Path, *, tensors: bool = True) -> Any:
    """What a .ckpt file or folder holds, if that is plain data."""
    if not path.is_dir() and not is_whole(path):
        raise UserError(
            f"{path} is truncated or no checkpoint ({path.stat().st_size:,} bytes that do not end as one's "
            "should). Use another one of its run, or copy it again."
        )
    try:
        if path.is_dir():
            return read_shared(path) if tensors else read_plain_part(path)
        return torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    except pickle.UnpicklingError as error:
        raise UserError(
            f"{path} holds more than weights and plain data, so it was not read: it could run code. "
            "Checkpoints of this program never do."
        ) from error
    except (RuntimeError, EOFError, OSError, KeyError) as error:
        raise UserError(f"{path} cannot be read as a checkpoint ({first_line(error)}). Copy it again.") from error


def find_run(path: str | Path) -> Path:
    """The run folder that `path` means: itself, that of a checkpoint in it, or the newest run below it.

    Raises:
        UserError: nothing there, or no run in it.
    """
    path = Path(path).expanduser()
    if _is_one(path) and path.parent.name == "checkpoints":
        return path.parent.parent
    if _checkpoint_files(path):
        return path
    if path.name == "checkpoints" and _checkpoint_files(path.parent):
        return path.parent
    if not path.exists():
        raise UserError(f"there is no run at {path}. {TRAIN_ONE}")
    runs = {folder.parent for depth in ("*", "*/*", "*/*/*") for folder in path.glob(f"{depth}/checkpoints")}
    dated = {max(file.stat().st_mtime for file in files): run for run in runs if (files := _checkpoint_files(run))}
    if not dated:
        raise UserError(_is_no_run(path))
    return dated[max(dated)]


def _is_no_run(path: Path) -> str:
    """What to say of a file or folder that holds no checkpoint of a run."""
    if (path / "model_index.json").is_file():
        return (
            f"{path} is a pipeline of diffusers, and no run: paint with it by DiffusionPipeline, or begin a run with "
            "its weights by init_from (docs/sharing.md)."
        )
    if (path / "painting.json").is_file():
        return f"{path} is a model for onnxruntime, and no run: python examples/onnx_paint.py {path} 'a caption'"
    if models := sorted(path.glob(f"*{SUFFIX}")):
        return f"{path} holds no run, but exported models: give one of these files, such as run={models[0]}"
    if (path / "manifest.json").is_file():
        return f"{path} holds shards to train on (data.path={path}), and no run. {TRAIN_ONE}"
    if path.is_dir() and _checkpoint_files(path.parent):
        return f"{path} is a folder inside a run: give the run itself, run={path.parent}"
    return f"there is no run with a checkpoint in {path}. {TRAIN_ONE}"


def find_checkpoint(path: str | Path, which: str = "last") -> Path:
    """A checkpoint file: `path` itself, or of the run it means the `last`, the `best` or one of that name.

    `last` is the newest that is whole: one cut short by a full disk is passed over, and that is said.

    Raises:
        UserError: nothing there, or nothing whole.
    """
    path = Path(path).expanduser()
    if _is_one(path):
        return path
    if path.suffix == ".ckpt":
        there = ", ".join(file.stem for file in _named_files(path.parent.parent))
        more = f"Its run has {there}." if there else "Give a run folder for its newest one."
        raise UserError(f"there is no checkpoint at {path}. {more}")
    run = find_run(path)
    if which != "last":
        named = run / "checkpoints" / f"{step_named(which) or which.removesuffix('.ckpt')}.ckpt"
        if not _is_one(named):
            present = ", ".join(file.stem for file in _named_files(run))
            raise UserError(f"{run} has no checkpoint named {which!r}; it has {present}.")
        return named
    broken = []
    for file in _newest_first(run):
        if is_whole(file):
            if broken:
                log.warning("%s is not whole; going on with %s", ", ".join(map(str, broken)), file.name)
            return file
        broken.append(file)
    raise UserError(f"no checkpoint of {run} is whole ({len(broken)} are truncated). {TRAIN_ONE}")


def step_named(name: str) -> str | None:
    """`step_00000500` of `500`, `step_500` and diffusers' `checkpoint-500`, with a suffix or not; None of others."""
    step = re.fullmatch(r"(?:step_|checkpoint-)?(\d+)(?:\.ckpt)?", name)
    return f"step_{int(step[1]):08d}" if step else None


def is_whole(path: Path) -> bool:
    """Whether a checkpoint file ends as it should: its table of contents, written last, is there and fits. Or a folder
    that several processes wrote has all its parts.
    """
    if path.is_dir():
        return is_shared_checkpoint(path) and is_whole(path / PLAIN)
    try:
        with zipfile.ZipFile(path) as archive:
            return any(name.endswith("/data.pkl") for name in archive.namelist())
    except (zipfile.BadZipFile, OSError):
        return False


def checkpoint_id(path: str | Path) -> str:
    """`step_00000500-3f9c21ab`: its step, and a hash of all it holds, read from the checksums in the file.

    That of an exported model is that of the checkpoint it is from.
    """
    path = Path(path).resolve()
    if path.suffix == SUFFIX:
        return str(read_about(path)["checkpoint"])
    if path.is_dir():
        return f"{path.stem}-{shared_id(path)}"
    with zipfile.ZipFile(path) as archive:
        parts = [f"{entry.filename.partition('/')[2]} {entry.CRC} {entry.file_size}" for entry in archive.infolist()]
    digest = hashlib.sha256("\n".join(parts).encode()).hexdigest()
    return f"{path.stem}-{digest[:8]}"


def _is_one(path: Path) -> bool:
    """A file, or a folder that the processes of a run wrote together."""
    return path.is_file() or (path.suffix == ".ckpt" and path.is_dir())


def has_checkpoints(run: Path) -> bool:
    """Whether anything was saved in a run, whole or not."""
    return any(run.glob("checkpoints/*.ckpt"))


def _checkpoint_files(run: Path) -> list[Path]:
    """Those that training wrote."""
    return [file for file in _named_files(run) if not file.name.startswith(POSTHOC)]


def _named_files(run: Path) -> list[Path]:
    return sorted(file for file in run.glob("checkpoints/*.ckpt") if _is_one(file))


def _newest_first(run: Path) -> list[Path]:
    """What `last.ckpt` points to, then by step."""
    files = {file.resolve(): file for file in _checkpoint_files(run)}

    last = (run / "checkpoints" / "last.ckpt").resolve()

    def age(file: Path) -> tuple[bool, int, float]:
        step = re.search(r"step_(\d+)", file.name)
        return file == last, int(step[1]) if step else -1, file.stat().st_mtime

    return sorted(files, key=age, reverse=True)


def _check_text_encoder(model: TextToImage, trained_with: dict[str, Any] | None, origin: str | Path) -> None:
    """A frozen tower is not in the checkpoint, so make sure that it is the same one."""
    here = model.text_encoder.describe()
    if trained_with and here.get("sha256") != trained_with.get("sha256"):
        raise UserError(
            f"{origin} was trained with the text encoder {_called(trained_with)}, weights "
            f"{str(trained_with.get('sha256'))[:12]}; those found here are {str(here.get('sha256'))[:12]}. "
            "Give it the same weights."
        )


def _called(described: Mapping[str, Any]) -> str:
    """What `TextEncoder.describe` named, in a sentence."""
    if "encoders" in described:
        return " and ".join(map(_called, described["encoders"].values()))
    return (
        str(described["path"]) if "path" in described else f"{described.get('model')} / {described.get('pretrained')}"
    )
