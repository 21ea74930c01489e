"""What of a run its loaders bring that frozen encoders said before, in place of asking them at each step."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from diffusion_art.config import build
from diffusion_art.data.precomputed import PLAIN, Wanted
from diffusion_art.errors import UserError
from diffusion_art.models.codec import Codec
from diffusion_art.models.image_tower import ImageTower
from diffusion_art.models.text_encoder import TextEncoder
from diffusion_art.models.text_to_image import TextToImage
from diffusion_art.shards.pixels import PAYLOADS
from diffusion_art.shards.side_files import FEATURES, LATENTS, TEXT, digest_of
from diffusion_art.training.plain_steps import AnyStep
from diffusion_art.training.terms.term import Term


def wanted(settings: Mapping[str, Any], step: AnyStep, *, command: str) -> Wanted | None:
    """What a settled run asks for by `data.payload`, `data.text_states` and `data.image_features`; None: nothing of any
    encoder.

    Raises:
        UserError: the run trains the encoder, has none, or does with pictures what cannot be done with latents.
    """
    data = settings["data"]
    latents = PAYLOADS[data["payload"]].encoded
    states, features = bool(data.get("text_states")), bool(data.get("image_features"))
    if not (latents or states or features):
        return None
    model = step.model
    if not isinstance(model, TextToImage):
        raise UserError(f"{model.called} is trained on pictures themselves: give it {PLAIN}.")
    codec = data["payload"]
    if latents:
        _check_pictures_are_not_needed(step, features=features)
        codec = f"{LATENTS}:{codec_digest(model.codec)}"
    if latents or features:
        _check_pictures_stay_as_they_are(data, "data.payload=latents" if latents else "data.image_features=true")
    if states:
        codec += f"+{TEXT}:{text_digest(model.text_encoder)}"
    if features:
        codec += f"+{FEATURES}:{features_digest(_tower_of(step))}"
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


def features_digest(tower: ImageTower) -> str:
    """The digest by which the features of `tower` are known."""
    return digest_of(tower.describe())


def _tower_of(step: AnyStep) -> ImageTower:
    for term in _terms(step):
        if (tower := term.features_of) is not None:
            return tower
    raise UserError(
        "data.image_features=true brings what the image tower of an alignment sees, and this run has none: set "
        "alignment=features, or data.image_features=false."
    )


def _terms(step: AnyStep) -> list[Term]:
    terms: Any = step.terms
    return [term for term in terms.values() if isinstance(term, Term)]


def _check_pictures_stay_as_they_are(data: Mapping[str, Any], asked: str) -> None:
    augmentation = data.get("augmentation") or {}
    if augmentation.get("horizontal_flip") or augmentation.get("min_crop", 1.0) < 1.0:
        raise UserError(
            f"{asked} brings what was made of whole pictures, which are not mirrored or cropped: set "
            f"data.augmentation.horizontal_flip=0 data.augmentation.min_crop=1, or {PLAIN}."
        )
    if len(build(data["curriculum"]).sizes_px(data["image_size_px"])) > 1:
        raise UserError(f"{asked} brings what was made of pictures of one size: set curriculum=none, or {PLAIN}.")


def _check_pictures_are_not_needed(step: AnyStep, *, features: bool) -> None:
    for term in _terms(step):
        if not term.sees_pixels or (features and term.features_of is not None):
            continue
        early = " data.image_features=true, or" if term.features_of is not None else ""
        raise UserError(
            f"the term {term.name} of the loss looks at pictures, and data.payload=latents brings none: set{early} "
            f"{term.off or f'{term.name}=none'}, or data.payload=jpeg."
        )
