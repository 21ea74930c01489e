"""From a settled run config, plain data, to the module and the trainer of the run."""

from __future__ import annotations

from functools import partial
from typing import Any

from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch import Callback, Trainer
from lightning.pytorch.callbacks import Checkpoint, ProgressBar

from diffusion_art.checkpoints import checkpoint_id, load_text_to_image
from diffusion_art.config import build
from diffusion_art.errors import UserError
from diffusion_art.training.aligned import AlignedModule
from diffusion_art.training.limits import check_accelerator, interval, validation_interval
from diffusion_art.training.module import DiffusionModule
from diffusion_art.training.provenance import provenance
from diffusion_art.training.student import StudentModule
from diffusion_art.training.timer import StepTimer


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
    """The trainer of a settled run.

    Raises:
        UserError: what Lightning has to say against it.
    """
    callbacks: list[Callback] = [build(node) for node in settings["callbacks"].values() if node]
    loggers = [build(node) for node in settings["logger"].values() if node]
    bar, saves = (any(isinstance(callback, kind) for callback in callbacks) for kind in (ProgressBar, Checkpoint))
    node = trainer_node(settings["trainer"])
    check_accelerator(str(node["accelerator"]))
    if (duration := node.pop("max_time", None)) is not None:
        callbacks.append(_timer(duration))
    make = build(node, callbacks=None, logger=None, default_root_dir=settings["paths"]["run_dir"], _partial_=True)
    try:
        return make(callbacks=callbacks, logger=loggers, enable_progress_bar=bar, enable_checkpointing=saves)
    except (MisconfigurationException, TypeError, ValueError, RuntimeError) as error:
        raise refused(error) from error


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
    """What Lightning says of a trainer's settings, as one sentence."""
    said = " ".join(str(error).split()).rstrip(".") or type(error).__name__
    return UserError(f"Lightning refuses the trainer: {said}. See its settings with `--cfg job --package trainer`.")


def is_lightnings(error: BaseException) -> bool:
    """Whether Lightning itself raised it, to tell the user something."""
    place = error.__traceback__
    while place is not None and place.tb_next is not None:
        place = place.tb_next
    return place is not None and str(place.tb_frame.f_globals.get("__name__")).startswith("lightning.")


def _timer(duration: Any) -> StepTimer:
    try:
        return StepTimer(duration)
    except (MisconfigurationException, TypeError, ValueError) as error:
        raise UserError(
            f"trainer.max_time={duration} is not a time. Write it as days, hours, minutes and seconds: "
            "trainer.max_time=00:01:30:00."
        ) from error
