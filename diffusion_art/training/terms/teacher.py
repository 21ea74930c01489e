"""The teacher of a student: distillation asks it, beside the student, what to make of the same noise."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from diffusion_art.checkpoints import checkpoint_id, find_checkpoint, load_text_to_image
from diffusion_art.errors import UserError
from diffusion_art.models.text_to_image import TextToImage
from diffusion_art.training.terms.term import Term


class Teacher(Term):
    """Tells the objective (`Distillation`) what the guided teacher answers. It adds no loss of its own.

    `run` is the teacher's, or its checkpoint. The `student` starts with its weights, so a student is made before an
    average of its weights begins. The teacher's guidance becomes a part of the student, which is sampled at
    guidance_scale 1. The teacher is frozen, and checkpoints name it (`teacher`, its id) and do not copy it.

    Raises:
        UserError: no model at `run`, or a checkpoint to resume whose student had another teacher.
    """

    name = "teacher"
    off = "its own experiment"
    model: TextToImage

    def __init__(self, *, run: str | Path, guidance_scale: float, student: TextToImage) -> None:
        super().__init__()
        checkpoint = find_checkpoint(run)
        self.teacher_id = checkpoint_id(checkpoint)
        self.guidance_scale = guidance_scale
        model = load_text_to_image(checkpoint)
        student.load_trainable_state(model.trainable_state())  # before `hide` leaves none of them trainable
        self.hide("model", model)

    @classmethod
    def of_model(cls, model: TextToImage) -> dict[str, Any]:
        return {"student": model}

    def told(self, captions: Sequence[str]) -> dict[str, Any]:
        taught = self.model.encode_captions(captions)
        return {"teacher": self.model.denoiser(taught, guidance_scale=self.guidance_scale)}

    def saved(self) -> dict[str, Any]:
        return {"id": self.teacher_id}

    def resume(self, state: Mapping[str, Any]) -> None:
        if state["id"] != self.teacher_id:
            raise UserError(
                f"the student in this checkpoint was taught by {state['id']}, and that of teacher.run is "
                f"{self.teacher_id}. Resume it with its own: teacher.run=RUN/checkpoints/NAME.ckpt."
            )


def student_of(taught: dict[str, Any], *, chosen: dict[str, Any], origin: str | Path) -> dict[str, Any]:
    """The config of a student's model: its teacher's, that of `origin`. `chosen` is what the run says of its own.

    Raises:
        UserError: something was chosen that the teacher does not have.
    """
    found = _difference("model", chosen, {name: taught.get(name) for name in chosen})
    if found is None:
        return taught
    key, own, its = found
    remedy = "Drop that override."
    if key == "model.image_size_px":
        key, remedy = "data.image_size_px", f"Give it pictures of that size: data.image_size_px={its}."
    raise UserError(f"a student is what its teacher is, and {origin} has {key}={its}, this run {key}={own}. {remedy}")


def _difference(key: str, one: Any, other: Any) -> tuple[str, Any, Any] | None:
    """The first key at or below `key` where `one` says something that `other` does not, with both values."""
    if isinstance(one, dict) and isinstance(other, dict):
        found = (_difference(f"{key}.{name}", value, other.get(name)) for name, value in one.items())
        return next(filter(None, found), None)
    return None if one in (None, other) else (key, one, other)
