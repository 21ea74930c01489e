"""From a settled run config, plain data, to the module and the trainer of the run."""

from __future__ import annotations

from functools import partial
from typing import Any

from lightning.pytorch import Callback, Trainer
from lightning.pytorch.callbacks import ProgressBar

from diffusion_art.checkpoints import checkpoint_id, load_text_to_image
from diffusion_art.config import build
from diffusion_art.errors import UserError
from diffusion_art.training.aligned import AlignedModule
from diffusion_art.training.module import DiffusionModule
from diffusion_art.training.provenance import provenance
from diffusion_art.training.student import StudentModule
from diffusion_art.training.trackers import tell_settings


def build_module(settings: dict[str, Any]) -> DiffusionModule:
    model = build(settings["model"])
    sizes_px = build(settings["data"]["curriculum"]).sizes_px(settings["data"]["image_size_px"])
    for size_px in sizes_px:
        model.check_size(size_px)
    optim = dict(settings["optim"])
    weight_decay = optim.pop("weight_decay", 0.0)
    make = DiffusionModule
    if "teacher" in settings:
        if len(sizes_px) > 1:
            raise UserError("a teacher knows pictures of its own size only: a student has curriculum=none.")
        if settings["alignment"] is not None:
            raise UserError("a student is taught by its teacher, and by no image tower beside it: use alignment=none.")
        make = partial(
            StudentModule,
            teacher=load_text_to_image(settings["teacher"]),
            teacher_id=checkpoint_id(settings["teacher"]),
            teacher_guidance_scale=settings["teacher_guidance_scale"],
        )
    elif settings["alignment"] is not None:
        alignment = build(settings["alignment"])(maps=model.backbone.maps)
        make = partial(AlignedModule, alignment=alignment)
    return make(
        model,
        build(settings["objective"]),
        optimizer=build(optim),
        lr_schedule=build(settings["lr_schedule"]),
        ema=build(settings["ema"]),
        noise=build(settings["noise"]),
        weight_decay=weight_decay,
        caption_dropout=settings["caption_dropout"],
        seed=settings["seed"],
        config=settings,
        provenance=provenance(),
        compile_network=settings["compile"],
    )


def build_trainer(settings: dict[str, Any]) -> Trainer:
    callbacks: list[Callback] = [build(node) for node in settings["callbacks"].values() if node]
    loggers = [build(node) for node in settings["logger"].values() if node]
    bar = any(isinstance(callback, ProgressBar) for callback in callbacks)
    node = dict(settings["trainer"])
    if isinstance(node["val_check_interval"], int):  # steps to us, batches to Lightning
        node["val_check_interval"] *= node["accumulate_grad_batches"]
    if node["max_steps"] > 0:  # a short run leaves a curve too
        node["log_every_n_steps"] = min(node["log_every_n_steps"], max(1, node["max_steps"] // 10))
    trainer = build(
        node,
        callbacks=None,
        logger=None,
        default_root_dir=settings["paths"]["run_dir"],
        _partial_=True,
    )(callbacks=callbacks, logger=loggers, enable_progress_bar=bar)
    for logger in loggers:
        tell_settings(logger, settings)
    return trainer
