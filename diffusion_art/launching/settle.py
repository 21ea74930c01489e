"""What a composed config leaves open, settled before anything is built: length, precision, compiling, the model."""

from __future__ import annotations

import inspect
import logging
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch
from omegaconf import DictConfig, OmegaConf, open_dict

from diffusion_art.accel.regions import cannot_compile
from diffusion_art.checkpoints import read_plain
from diffusion_art.config import build, class_of, config_dir, is_a, kind_of, plain, shipped
from diffusion_art.devices import computes_in_bf16, device_of, precision_named
from diffusion_art.errors import UserError
from diffusion_art.launching import names
from diffusion_art.launching.processes import processes_of
from diffusion_art.models.text_to_image import TextToImage
from diffusion_art.prompts import EXAMPLES, read_prompts
from diffusion_art.record import Record
from diffusion_art.runs import load_run
from diffusion_art.sources.painter import Painter
from diffusion_art.training.build import build_datamodule
from diffusion_art.training.run.init_from import started_from
from diffusion_art.training.run.length import settled_steps
from diffusion_art.training.run.limits import LASTING, check_limits, check_trial, trial
from diffusion_art.training.run.run_shards import shards_of
from diffusion_art.training.terms.teacher import Teacher, student_of
from diffusion_art.units import counted

log = logging.getLogger(__name__)

TINY_PARTS = (("model", "backbone"), ("model", "text_encoder"), ("callbacks", "samples"))
WORTH_COMPILING_STEPS = 1000  # compile=auto: a shorter run is over before compiling has paid


def settle(
    config: DictConfig, run_dir: Path, *, typed: Sequence[str] = (), checkpoint: Path | None = None
) -> dict[str, Any]:
    """The config as plain data with every choice made: run folder, length, precision, compiling, teacher, text encoder.

    `typed` are the keys that were given on the command line, `checkpoint` what the run goes on from. What it returns
    rides in the checkpoint and builds the same run anywhere.

    Raises:
        UserError: a value out of range, or no length.
    """
    names.register()
    with open_dict(config):
        config.paths.run_dir = str(run_dir)
        for group in ("logger", "callbacks"):
            config[group] = _kept(config.get(group) or {}, group, typed)
        _settle_source(config, typed)
        _settle_length(config, typed)
        _settle_strategy(config)
        config.trainer.precision = settled_precision(config.trainer.precision, str(config.trainer.accelerator))
        config.compile = settled_compile(config.compile, str(config.trainer.accelerator), config.trainer.max_steps)
        _settle_tiny(config, typed)
        if config.get("teacher"):
            _settle_teacher(config)
        else:
            _settle_text_encoder(config)
        if config.get("init_from"):
            _settle_start(config, typed, checkpoint)
    settings = plain(config)
    check_limits(settings)
    _settle_prompts(settings)
    if is_a(settings["model"], TextToImage):
        _settle_sizes(settings)
    return settings


def _kept(nodes: Mapping[Any, Any], group: str, typed: Sequence[str]) -> dict[Any, Any]:
    """The nodes of a group; of one that `~callbacks` leaves out those alone that were typed, not what an experiment
    says of the others.
    """
    added = {key.split(".")[1] for key in typed if key.startswith(f"{group}.")}
    return {name: node for name, node in nodes.items() if f"~{group}" not in typed or name in added}


def check_same_data(checkpoint: Path, config: DictConfig) -> None:
    """UserError where shards of other pictures than those of the checkpoint would be built, and refused after that."""
    data, before = plain(config.data), Record.of(read_plain(checkpoint), origin=checkpoint).config["data"]
    if data.get("url") not in ("auto", "shards") or before.get("path") is None or _same(data, before):
        return
    if shards_of(data, config.paths.data_dir).are_built():
        return  # they are compared when they are read
    raise UserError(
        f"{checkpoint} was trained on other pictures, those of data.path={before['path']}, and shards of "
        f"data.path={data['path']} would be built first. Go on with the data.path and data.source that it was trained "
        "on, or begin a new run (run=NAME)."
    )


def _same(data: dict[str, Any], before: dict[str, Any]) -> bool:
    """Whether two `data` nodes name the same pictures."""
    sources = (data.get("source"), before.get("source"))  # None where what lies at the path was taken
    return data["path"] == before["path"] and (None in sources or sources[0] == sources[1])


def _settle_source(config: DictConfig, typed: Sequence[str]) -> None:
    """No painter, and none of its captions in grids, where `data.path` or the server at `data.url` has pictures that it
    has not painted.
    """
    data = plain(config.data)
    if data.get("url") in ("auto", "shards"):
        if not shards_of(data, config.paths.data_dir).lie_elsewhere():
            return
        log.info("data.path=%s holds pictures of its own, so none are painted", data["path"])
    else:
        if not is_a(data.get("source"), Painter):
            return
        served = build_datamodule(plain(config)).origin.served_name()
        if served in (None, build(data["source"]).name):
            return
        log.info("the server at data.url=%s has `%s`, and not the painter's pictures", data["url"], served)
        config.data.path = None
    config.data.source = None
    if config.prompts == "painter" and "prompts" not in typed:
        config.prompts = "auto"


def _settle_sizes(settings: dict[str, Any]) -> None:
    """The sizes that the model paints, where its pictures keep their shape. Data that cannot be had are told of when
    the run reads them.
    """
    with suppress(UserError):
        if sizes := build_datamodule(settings).sizes():
            settings["model"]["sizes"] = sizes


def _settle_prompts(settings: dict[str, Any]) -> None:
    """The texts themselves, for the grids and for all that is painted from this run later."""
    for asked in (settings, settings["callbacks"].get("samples") or {}):
        if asked.get("prompts") == "auto":
            asked["prompts"] = build_datamodule(settings).example_captions(EXAMPLES) or "wikiart"
        if "prompts" in asked:  # null: none
            asked["prompts"] = read_prompts([] if asked["prompts"] is None else asked["prompts"])


def _settle_length(config: DictConfig, typed: Sequence[str]) -> None:
    """`trainer.max_steps`, which all that depends on the run's length follows, whatever was given of it."""
    trainer = plain(config.trainer)
    check_trial(trainer)
    if steps := int(trainer.get("fast_dev_run") or 0):
        config.trainer = trial(trainer, steps)
        config.logger = {}
        config.callbacks = {name: node for name, node in config.callbacks.items() if name not in LASTING}
        took = counted(steps, "step")
        log.info("trainer.fast_dev_run: %s, as many batches of validation", took)
        return
    known = {"data": plain(config.data), "paths": plain(config.paths), "trainer": trainer}
    check_limits(known)
    config.trainer.max_steps, said = settled_steps(
        trainer,
        typed=typed,
        per_step=known["data"]["global_batch_size"] * trainer["accumulate_grad_batches"],
        pictures=lambda: build_datamodule(known).origin.training_samples(),
    )
    config.trainer.max_epochs = -1
    if said:
        log.info("%s", said)


def _settle_strategy(config: DictConfig) -> None:
    """Several devices are shared as `trainer=ddp` shares them, where nothing else is asked for."""
    trainer = plain(config.trainer)
    if trainer.get("strategy") in (None, "auto") and processes_of({**trainer, "strategy": "ddp"}) > 1:
        config.trainer.strategy = "ddp"
        config.trainer.use_distributed_sampler = False


def settled_precision(asked: int | str, accelerator: str) -> int | str:
    """What Lightning calls it: `bf16` is mixed precision there, `no` is accelerate's word for none, and `auto` is the
    best that the processor computes in.

    Raises:
        UserError: weights of 16 bits.
    """
    if asked in ("bf16-true", "16-true"):
        raise UserError(
            f"trainer.precision={asked} would hold the weights themselves in 16 bits, which cannot be trained here: "
            "take trainer.precision=bf16, which computes in 16 bits."
        )
    if asked == "auto":
        return best_precision(accelerator)
    return {"fp32": "32-true", "bf16": "bf16-mixed", "no": "32-true"}.get(precision_named(str(asked)), asked)


def best_precision(accelerator: str) -> str:
    """`bf16-mixed` where the processor computes in bf16, else full precision."""
    return "bf16-mixed" if computes_in_bf16(torch.device(device_of(accelerator))) else "32-true"


def settled_compile(asked: bool | str, accelerator: str, max_steps: int) -> bool | str:
    """How the network is compiled: `auto` is by region (true) on a GPU, for a run long enough to gain by it.

    Raises:
        UserError: no such choice, or nothing to compile with.
    """
    if asked not in (False, True, "whole", "auto"):
        raise UserError(f"compile={asked} is not known: choose auto, true (by region), whole (as one graph) or false.")
    on_gpu = device_of(accelerator) == "cuda"
    if not asked or (asked == "auto" and not (on_gpu and (max_steps < 0 or max_steps >= WORTH_COMPILING_STEPS))):
        return False
    lacking = cannot_compile("cuda" if on_gpu else "cpu")
    if lacking and asked != "auto":
        raise UserError(f"compile={str(asked).lower()} is not possible here: {lacking}. Or train with compile=false.")
    if lacking:
        log.warning("the network is not compiled, and trains slower: %s", lacking)
        return False
    return True if asked == "auto" else asked


def _settle_tiny(config: DictConfig, typed: Sequence[str]) -> None:
    """`+debug=tiny` makes the network, of whatever kind, and the text tower that is trained along small; an encoder of
    another kind keeps its own size. What it says of a part that a run does not have goes: an autoencoder has no text
    tower. Such a part has no class.
    """
    for section, name in TINY_PARTS:
        node = config[section].get(name)
        given = any(_below(key, section, name) for key in typed)
        if isinstance(node, DictConfig) and "_target_" not in node and not given:
            del config[section][name]
    for part, sizes in shipped("debug/tiny")["model"].items():
        node = config.model.get(part)
        if not isinstance(node, DictConfig) or "_target_" not in node:
            continue
        known = inspect.signature(kind_of(node)).parameters
        for name, size in sizes.items():
            of_tiny = name in node and node[name] == size and f"model.{part}.{name}" not in typed
            if of_tiny and name not in known:
                del node[name]


def _below(key: str, *parts: str) -> bool:
    return key.split(".")[: len(parts)] == list(parts)


def _settle_text_encoder(config: DictConfig) -> None:
    """Where the weights of the text encoder cannot be had and the experiment names another to go on with, take that
    one, loudly.
    """
    fallback, encoder = config.text_encoder_fallback, config.model.get("text_encoder")
    if fallback is None or encoder is None or not (lacking := _unreachable(plain(encoder))):
        return
    path = config_dir() / "model" / "text_encoder" / f"{fallback}.yaml"
    if not path.is_file():
        raise UserError(f"text_encoder_fallback={fallback} is no choice of model/text_encoder.")
    log.warning(
        "WARNING: the weights of %s cannot be reached, so a text tower trained from scratch (%s) takes their place; "
        "captions will be followed less well. To train with the real one, run once where the hub can be reached, or "
        "give model.text_encoder.%s=<file>.",
        " and ".join(lacking),
        fallback,
        "path" if "path" in encoder else "pretrained",
    )
    config.model.text_encoder = OmegaConf.load(path)


def _unreachable(encoder: dict[str, Any]) -> list[str]:
    """What those weights of a text encoder's settings are called that cannot be had; of a pair, of each."""
    if "encoders" in encoder:
        return [name for part in encoder["encoders"].values() for name in _unreachable(part)]
    kind = class_of(encoder)
    return [] if kind.reachable(encoder) else [kind.called(encoder)]


def _settle_start(config: DictConfig, typed: Sequence[str], checkpoint: Path | None) -> None:
    """The shape of the model, where the run starts from a UNet of diffusers; that of the checkpoint of a run that goes
    on, where the folder has gone.
    """
    folder = Path(config.init_from).expanduser()
    if not is_a(config.model, TextToImage):
        kind = class_of(config.model).called
        raise UserError(f"init_from={folder} is for text-to-image models, and this run trains {kind}: drop it.")
    if config.get("teacher"):
        raise UserError(f"a student starts as its teacher, so init_from={folder} has no place here: drop one of them.")
    if checkpoint is not None and not folder.exists():
        before = Record.of(read_plain(checkpoint), origin=checkpoint).config["model"]
        for part in ("backbone", "text_encoder"):
            chosen = {key: value for key, value in plain(config.model[part]).items() if f"model.{part}.{key}" in typed}
            config.model[part] = before[part] | chosen
        return
    config.init_from = str(folder)
    model = started_from(plain(config)["model"], folder, typed=typed)
    config.model = model
    log.info("starting from the UNet of %s: block_channels=%s", folder, model["backbone"]["block_channels"])


def _settle_teacher(config: DictConfig) -> None:
    """Which file the teacher is, and with it all that the student shares with it."""
    if not is_a(config.teacher, Teacher):
        raise UserError(f"teacher={config.teacher} is no teacher: name its run with teacher.run=... instead.")
    run = load_run(plain(config)["teacher"]["run"])
    config.teacher.run = str(run.checkpoint)
    config.model = student_of(run.config["model"], chosen=plain(config.model), origin=run.checkpoint)
    if config.teacher.guidance_scale is None:
        config.teacher.guidance_scale = run.config["guidance_scale"]
