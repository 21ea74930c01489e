"""The shell of distillation: training as ever, but what the student should have answered is asked of its teacher."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from torch import Tensor

from diffusion_art.checkpoints import KEY
from diffusion_art.diffusion.distillation import Distillation
from diffusion_art.errors import UserError
from diffusion_art.models.text_to_image import TextToImage
from diffusion_art.training.module import DiffusionModule, Network


class StudentModule(DiffusionModule):
    """Trains `model`, which starts from its teacher's weights, on what the guided `teacher` makes of the same noise.

    The teacher's guidance becomes a part of the student, which is sampled at guidance_scale 1. The teacher is frozen,
    and checkpoints name it (`teacher_id`) and do not copy it.

    Raises:
        UserError: a checkpoint to resume whose student had another teacher.
    """

    teacher: TextToImage

    def __init__(
        self,
        model: TextToImage,
        objective: Distillation,
        *,
        teacher: TextToImage,
        teacher_id: str,
        teacher_guidance_scale: float,
        provenance: dict[str, Any] | None = None,
        **shell: Any,
    ) -> None:
        model.load_trainable_state(teacher.trainable_state())  # before the average is begun
        super().__init__(model, objective, provenance={**(provenance or {}), "teacher": teacher_id}, **shell)
        object.__setattr__(self, "teacher", teacher.requires_grad_(False).eval())  # past nn.Module's registry
        self.teacher_id = teacher_id
        self.teacher_guidance_scale = teacher_guidance_scale

    def losses(
        self, x_0: Tensor, eps: Tensor, t: Tensor, captions: list[str], network: Network | None = None
    ) -> Tensor:
        network = network or self._network
        cond = self.model.encode_captions(captions)
        taught = self.teacher.encode_captions(captions)
        return self.objective(
            lambda x_t, t: network(x_t, t, cond),
            teacher=self.teacher.denoiser(taught, guidance_scale=self.teacher_guidance_scale),
            schedule=self.model.schedule,
            prediction=self.model.prediction,
            x_0=x_0,
            eps=eps,
            t=t,
        )

    def on_fit_start(self) -> None:
        self.teacher.to(self.device)

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        taught_by = checkpoint[KEY].get("teacher")
        if taught_by != self.teacher_id:
            raise UserError(
                f"the student in this checkpoint was taught by {taught_by}, and teacher=... is {self.teacher_id}. "
                "Resume it with the checkpoint of its teacher: teacher=RUN/checkpoints/NAME.ckpt."
            )
        super().on_load_checkpoint(checkpoint)


def student_of(taught: dict[str, Any], *, chosen: dict[str, Any], origin: str | Path) -> dict[str, Any]:
    """The config of a student's model: its teacher's, that of `origin`. `chosen` is what the run says of its own.

    Raises:
        UserError: something was chosen that the teacher has not.
    """
    found = _difference("model", chosen, {name: taught.get(name) for name in chosen})
    if found is None:
        return taught
    key, own, its = found
    mend = "Drop that override."
    if key == "model.image_size_px":
        key, mend = "data.image_size_px", f"Give it pictures of that size: data.image_size_px={its}."
    raise UserError(f"a student is what its teacher is, and {origin} has {key}={its}, this run {key}={own}. {mend}")


def _difference(key: str, one: Any, other: Any) -> tuple[str, Any, Any] | None:
    """The first key at or below `key` where `one` says something that `other` does not, with both values."""
    if isinstance(one, dict) and isinstance(other, dict):
        found = (_difference(f"{key}.{name}", value, other.get(name)) for name, value in one.items())
        return next(filter(None, found), None)
    return None if one in (None, other) else (key, one, other)
