"""What of a run its loaders bring that frozen encoders said before, in place of asking them at each step."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from diffusion_art.config import build
from diffusion_art.data.precomputed import Wanted
from diffusion_art.errors import UserError
from diffusion_art.models.codec import Codec
from diffusion_art.models.text_encoder import TextEncoder
from diffusion_art.models.text_to_image import TextToImage
from diffusion_art.shards.payloads import PAYLOADS
from diffusion_art.shards.side_files import LATENTS, TEXT, digest_of
from diffusion_art.training.autoencoder_step import AutoencoderStep
from diffusion_art.training.clip_step import ClipStep
from diffusion_art.training.step import TrainingStep
from diffusion_art.training.terms.term import Term


def wanted(
    settings: Mapping[str, Any], step: TrainingStep | AutoencoderStep | ClipStep, *, command: str
) -> Wanted | None:
    """What a settled run asks for by `data.payload` and `data.text_states`; None: nothing of any encoder.

    Raises:
        UserError: the run trains the encoder, has none, or does with pictures what cannot be done with latents.
    """
    data = settings["data"]
    latents, states = PAYLOADS[data["payload"]].encoded, bool(data.get("text_states"))
    if not (latents or states):
        return None
    model = step.model
    if not isinstance(model, TextToImage):
        raise UserError(
            f"{model.called} is trained on pictures themselves: give it data.payload=jpeg and data.text_states=false."
        )
    codec = data["payload"]
    if latents:
        _check_pictures_are_not_needed(settings, step)
        codec = f"{LATENTS}:{codec_digest(model.codec)}"
    if states:
        codec += f"+{TEXT}:{text_digest(model.text_encoder)}"
    return Wanted(codec, model.latent_shape if latents else None, command)


def codec_digest(codec: Codec) -> str:
    """The digest by which the latents of `codec` are known. UserError where it has no weights."""
    about = codec.describe()
    if about is None:
        raise UserError(
            f"{type(codec).__name__} only rearranges pixels, so there are no latents to compute before: set "
            "data.payload=jpeg, or u8, or train on those of a VAE with model/codec=vae."
        )
    return digest_of(about)


def text_digest(encoder: TextEncoder) -> str:
    """The digest by which the states of `encoder` are known. UserError where it is trained."""
    if encoder.trainable:
        raise UserError(
            f"{type(encoder).__name__} is trained along with the backbone, so what it says of captions changes: set "
            "data.text_states=false, or take a frozen one with model/text_encoder=open_clip_pretrained."
        )
    return digest_of(encoder.describe())


def _check_pictures_are_not_needed(
    settings: Mapping[str, Any], step: TrainingStep | AutoencoderStep | ClipStep
) -> None:
    data = settings["data"]
    augmentation = data.get("augmentation") or {}
    if augmentation.get("horizontal_flip") or augmentation.get("min_crop", 1.0) < 1.0:
        raise UserError(
            "data.payload=latents brings no pictures to mirror or crop: set data.augmentation.horizontal_flip=0 "
            "data.augmentation.min_crop=1, or data.payload=jpeg."
        )
    if len(build(data["curriculum"]).sizes_px(data["image_size_px"])) > 1:
        raise UserError("data.payload=latents brings latents of one size: set curriculum=none, or data.payload=jpeg.")
    terms: Any = step.terms
    for term in terms.values():
        if isinstance(term, Term) and term.sees_pixels:
            raise UserError(
                f"the term {term.name} of the loss looks at pictures, and data.payload=latents brings none: set "
                f"{term.off or f'{term.name}=none'}, or data.payload=jpeg."
            )
