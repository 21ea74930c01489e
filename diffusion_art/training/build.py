"""From a settled run config, plain data, to the module and the trainer of the run."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, cast

import torch
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch import Callback, Trainer
from lightning.pytorch.callbacks import (
    BatchSizeFinder,
    Checkpoint,
    GradientAccumulationScheduler,
    LearningRateFinder,
    ModelCheckpoint,
    OnExceptionCheckpoint,
    ProgressBar,
    StochasticWeightAveraging,
    WeightAveraging,
)
from lightning.pytorch.strategies import DDPStrategy

from diffusion_art.checkpoints import build_model, held_codec
from diffusion_art.config import build, class_of, is_a, kind_of, made
from diffusion_art.data.datamodule import StreamDataModule
from diffusion_art.diffusion.distillation import Distillation
from diffusion_art.diffusion.objective import Objective, Reconstruction
from diffusion_art.errors import UserError, passed_through, raised_in
from diffusion_art.models.autoencoder import Autoencoder
from diffusion_art.models.clip_to_train import Contrastive, TrainableClip
from diffusion_art.models.image_tower import ImageTower
from diffusion_art.models.text_to_image import TextToImage
from diffusion_art.models.trainable import Trainable
from diffusion_art.models.unet_from_diffusers import load_from_diffusers
from diffusion_art.training.module import DiffusionModule
from diffusion_art.training.noise import Iid
from diffusion_art.training.plain_steps import AnyStep, AutoencoderStep, ClipStep
from diffusion_art.training.processes.sharded import NAME, FoldersToo
from diffusion_art.training.run.limits import interval, validation_interval
from diffusion_art.training.run.provenance import provenance
from diffusion_art.training.run.run_shards import shards_of, without_shards
from diffusion_art.training.run.saved_config import SavedConfig
from diffusion_art.training.run.stopping import StepTimer
from diffusion_art.training.run.trackers import begin
from diffusion_art.training.step import TrainingStep
from diffusion_art.training.terms.teacher import Teacher
from diffusion_art.training.terms.term import Term

JUDGED: dict[Any, type[Trainable]] = {  # what our objectives are for
    Objective: TextToImage,
    Distillation: TextToImage,
    Reconstruction: Autoencoder,
    Contrastive: TrainableClip,
}
USUAL: dict[type[Trainable], str] = {Autoencoder: "reconstruction", TrainableClip: "contrastive"}  # their choice
# callbacks of Lightning that do not go with a run, and why
AVERAGES = (
    "put its averages in a checkpoint in the place of the weights that a run goes on with. Every run keeps averages: "
    "ema.decay=0.999"
)
REFUSED: dict[type[Callback], str] = {
    GradientAccumulationScheduler: "change the batches of a step within a run, whose place in the data is counted in "
    "them: give trainer.accumulate_grad_batches=N for all of it",
    WeightAveraging: AVERAGES,
    StochasticWeightAveraging: AVERAGES,
    OnExceptionCheckpoint: "begin a new run from the file of an earlier one, without a word. A run that is stopped "
    "saves its last step, and ckpt_path=auto goes on from there",
    LearningRateFinder: "change the rate of a run that has begun: compare some, as in -m optim.lr=3e-4,1e-3",
    BatchSizeFinder: "change the batches of a run that has begun: give find_batch_size=true",
}


def build_datamodule(settings: dict[str, Any]) -> StreamDataModule:
    """The data module of a settled run, or of the `data` and `paths` of one."""
    node = without_shards(settings["data"])
    node["overfit_batches"] = settings.get("trainer", {}).get("overfit_batches") or 0
    shards = shards_of(settings["data"], settings["paths"]["data_dir"])
    return made(node, shards=shards)


def build_module(settings: dict[str, Any], *, checkpoint: Path | None = None) -> DiffusionModule:
    """The module of a settled run. One that goes on from a `checkpoint` has the codec that this holds."""
    optim = dict(settings["optim"])
    weight_decay = optim.pop("weight_decay", 0.0)
    return DiffusionModule(
        build_step(settings, checkpoint=checkpoint),
        optimizer=build(optim),
        lr_schedule=build(settings["lr_schedule"]),
        ema=build(settings["ema"]),
        weight_decay=weight_decay,
        config=settings,
        provenance=provenance(),
    )


def build_step(settings: dict[str, Any], *, checkpoint: Path | None = None) -> AnyStep:
    _check_objective(settings)
    if not is_a(settings["model"], TextToImage):
        return _plain_step(settings)
    teacher = settings.get("teacher")
    held = teacher["run"] if teacher else checkpoint
    model = build_model(settings["model"], codec=held_codec(held, settings["model"]) if held else None)
    if settings.get("init_from") and checkpoint is None:
        load_from_diffusers(model, Path(settings["init_from"]))
    sizes_px = build(settings["data"]["curriculum"]).sizes_px(settings["data"]["image_size_px"])
    for size_px in sizes_px:
        model.check_size(size_px)
    if teacher and len(sizes_px) > 1:
        raise UserError("a teacher knows pictures of its own size only: a student has curriculum=none.")
    return TrainingStep(
        model,
        build(settings["objective"]),
        noise=build(settings["noise"]),
        terms=build_terms(settings, model),
        caption_dropout=settings["caption_dropout"],
        seed=settings["seed"],
        compile_network=settings["compile"],
    )


def _plain_step(settings: dict[str, Any]) -> AutoencoderStep | ClipStep:
    """Of what paints nothing."""
    kind: type[Trainable] = class_of(settings["model"])
    if settings["compile"]:
        raise UserError(f"compile={settings['compile']} is for text-to-image models: {kind.called} has compile=false.")
    if (noise := settings.get("noise")) and not is_a(noise, Iid):
        raise UserError(f"noise near its picture is for text-to-image models: {kind.called} has noise=iid.")
    model = build(settings["model"])
    for size_px in build(settings["data"]["curriculum"]).sizes_px(settings["data"]["image_size_px"]):
        model.check_size(size_px)
    objective, terms = build(settings["objective"]), build_terms(settings, model)
    if isinstance(model, Autoencoder):
        return AutoencoderStep(model, objective, terms=terms, seed=settings["seed"])
    return ClipStep(model, objective)


def _check_objective(settings: dict[str, Any]) -> None:
    """UserError for an objective of ours that is for another kind of model, or for another one with a teacher. Those of
    others are taken at their word.
    """
    kind, own = class_of(settings["model"]), kind_of(settings["objective"])
    judged = JUDGED.get(own, kind)
    if not issubclass(kind, judged):
        fitting = next((choice for known, choice in USUAL.items() if issubclass(kind, known)), "logit_normal")
        raise UserError(
            f"the objective {own.__name__} is for {judged.called}, and this run trains {kind.called}: give "
            f"objective={fitting}."
        )
    taught = bool(settings.get("teacher"))
    if own is Distillation and not taught:
        raise UserError(
            "objective=distillation asks a teacher, and this run has none: +experiment=distill teacher.run=RUN has "
            "one. Or give objective=logit_normal."
        )
    if own is Objective and taught:
        raise UserError("this run has a teacher, and its objective asks none: give objective=distillation.")


def build_terms(settings: dict[str, Any], model: Trainable) -> list[Term]:
    """The terms among the config's top-level keys.

    Raises:
        UserError: a term that asks for what only a text-to-image model has.
    """
    terms: list[Term] = []
    towers: dict[str, ImageTower] = {}  # one for all terms that ask for the same
    nodes = [node for node in settings.values() if is_a(node, Term)]
    for node in sorted(nodes, key=lambda node: not is_a(node, Teacher)):  # random weights of others are drawn after it
        kind = cast(type[Term], class_of(node))
        if not isinstance(model, TextToImage) and kind.of_model.__func__ is not Term.of_model.__func__:
            raise UserError(f"{model.called} has no maps for {kind.name}: train it with {kind.name}=none.")
        if isinstance(model, TrainableClip):
            raise UserError(f"{model.called} makes no pictures for {kind.name}: train it with {kind.name}=none.")
        given = kind.of_model(model) if isinstance(model, TextToImage) else {}
        if "tower" in node:
            asked = json.dumps(node["tower"], sort_keys=True)
            towers[asked] = towers.get(asked) or build(node["tower"])
            given["tower"] = towers[asked]
        own = {key: value for key, value in node.items() if key not in given}
        terms.append(build({**own, "_partial_": True})(**given))
    return terms


def build_trainer(settings: dict[str, Any]) -> Trainer:
    """The trainer of a settled run.

    Raises:
        UserError: what Lightning has to say against it.
    """
    callbacks = [SavedConfig(folder=settings["paths"]["run_dir"]), *_callbacks(settings)]
    loggers = [build(node) for node in settings["logger"].values() if node]
    bar, saves = (any(isinstance(callback, kind) for callback in callbacks) for kind in (ProgressBar, Checkpoint))
    node = trainer_node(settings["trainer"])
    check_accelerator(str(node["accelerator"]))
    if (duration := node.pop("max_time", None)) is not None:
        callbacks.append(_timer(duration))
    more: dict[str, Any] = {} if node.get("strategy") == NAME else {"plugins": [FoldersToo()]}
    # gradients lie where they are summed: no copies there and back in each step. Buffers are constants, alike from the
    # start; to send them at each batch, a process would wait for one that has no picture in a batch of the validation
    if node.get("strategy") == "ddp":
        more["strategy"] = DDPStrategy(gradient_as_bucket_view=True, broadcast_buffers=False)
    make = build(node, callbacks=None, logger=None, default_root_dir=settings["paths"]["run_dir"], _partial_=True)
    try:
        trainer = make(callbacks=callbacks, logger=loggers, enable_progress_bar=bar, enable_checkpointing=saves, **more)
    except (MisconfigurationException, ImportError, TypeError, ValueError, RuntimeError) as error:
        raise refused(error) from error
    for logger in loggers:
        begin(logger, settings)
    hear_signals_alone(trainer)
    return trainer


def check_accelerator(accelerator: str) -> None:
    """UserError where a GPU is asked for, and there is none."""
    if accelerator in ("gpu", "cuda") and not torch.cuda.is_available() and not torch.backends.mps.is_available():
        raise UserError(
            f"trainer.accelerator={accelerator} needs a GPU, and torch finds none here. Use trainer=cpu, or "
            "trainer=auto for the best device there is."
        )


def _callbacks(settings: dict[str, Any]) -> list[Callback]:
    """Those of the config. Lightning's own checkpoints lie in the run folder too, where no other folder is asked for.

    Raises:
        UserError: one that does not go with a run, or would write through the link `last.ckpt` into a step's file.
    """
    found = {name: _callback(name, node) for name, node in settings["callbacks"].items() if node}
    folder = str(Path(settings["paths"]["run_dir"], "checkpoints").resolve())
    links = isinstance(ours := found.get("checkpoints"), Checkpoint) and not isinstance(ours, ModelCheckpoint)
    for name, callback in found.items():
        if not isinstance(callback, ModelCheckpoint):
            continue
        callback.dirpath = callback.dirpath or folder
        if callback.save_last and callback.dirpath == folder and links:
            raise UserError(
                f"callbacks.{name}.save_last={str(callback.save_last).lower()} would write last.ckpt, which is kept by "
                "callbacks.checkpoints: leave it out, or give callbacks.checkpoints=null."
            )
    return list(found.values())


def _callback(name: str, node: Any) -> Callback:
    """UserError for a node that makes none, or one that does not go with the way that steps are counted here."""
    callback = build(node)
    if not isinstance(callback, Callback):
        raise UserError(
            f"callbacks.{name} names no callback to make: give it a `_target_` too, as in "
            f"'+callbacks.{name}._target_=lightning.pytorch.callbacks.EarlyStopping'."
        )
    for kind, reason in REFUSED.items():
        if isinstance(callback, kind):
            raise UserError(f"callbacks.{name} would {reason}.")
    return callback


def hear_signals_alone(trainer: Trainer) -> None:
    """Several processes ask process 0 before each batch, in Lightning 2.6.6, whether it has had a SIGTERM: their hosts
    wait for the devices, and for one another. Ours have handlers and an agreement of their own
    (`callbacks/graceful_stop.py`).
    """
    setattr(trainer.fit_loop.epoch_loop, "_broadcast_sigterm_tensor", lambda: None)  # noqa: B010 - it has no public name


def trainer_node(trainer: dict[str, Any]) -> dict[str, Any]:
    """The node as Lightning wants it: intervals in batches, and what is off turned off in its way."""
    node = {**trainer, "overfit_batches": 0.0}  # the data module's
    every = validation_interval(node["val_check_interval"], max_steps=node["max_steps"])
    if every is None:
        node["limit_val_batches"], every = 0, 1
    node["val_check_interval"] = every if isinstance(every, str) else every * node["accumulate_grad_batches"]
    node["log_every_n_steps"] = interval(node["log_every_n_steps"]) or 0
    if node["max_steps"] > 0:  # a short run leaves a curve too
        node["log_every_n_steps"] = min(node["log_every_n_steps"], max(1, node["max_steps"] // 10))
    return node


def refused(error: Exception) -> UserError:
    """What Lightning says of a trainer's settings, or of a callback's, as one sentence."""
    said = " ".join(str(error).split()).rstrip(".") or type(error).__name__
    if (name := _callback_of(error)) is None:
        return UserError(f"Lightning refuses the trainer: {said}. See its settings with `--cfg job --package trainer`.")
    return UserError(f"Lightning's {name} cannot go on: {said}. Leave it out, or see `--cfg job --package callbacks`.")


def is_lightnings(error: BaseException) -> bool:
    """Whether Lightning itself raised it, to tell the user something, or one of its callbacks, whatever for."""
    told = raised_in(error, "lightning.") and not isinstance(error, AttributeError | TypeError)  # mistakes of a program
    return told or _callback_of(error) is not None


def _callback_of(error: BaseException) -> str | None:
    """The module of Lightning's callbacks that an error came through; None where there is none, or where our own code
    was called from there.
    """
    modules = passed_through(error)
    theirs = [number for number, name in enumerate(modules) if name.startswith("lightning.pytorch.callbacks.")]
    if not theirs or any(name.startswith("diffusion_art.") for name in modules[theirs[0] :]):
        return None
    return modules[theirs[0]].rpartition(".")[2]


def _timer(duration: Any) -> StepTimer:
    try:
        if not isinstance(duration, str | dict):  # a number is no time, and fails only when training starts
            raise TypeError(duration)
        return StepTimer(duration)
    except (MisconfigurationException, TypeError, ValueError) as error:
        raise UserError(
            f"trainer.max_time={duration} is not a time. Write it as days, hours, minutes and seconds: "
            "trainer.max_time=00:01:30:00."
        ) from error
