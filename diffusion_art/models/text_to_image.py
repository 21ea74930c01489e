"""The whole model: captions and noise in, pictures out. Everything below Lightning, above the maths."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from jaxtyping import Float
from rich.progress import track
from torch import Tensor, nn

from diffusion_art.diffusion.denoiser import Denoiser, Prediction, check_prediction
from diffusion_art.diffusion.guidance import Guidance
from diffusion_art.diffusion.samplers import Callback, NoiseSource, Sampler
from diffusion_art.diffusion.schedules import Schedule
from diffusion_art.errors import UserError
from diffusion_art.models.backbone import Backbone
from diffusion_art.models.codec import Codec
from diffusion_art.models.text_encoder import TextEncoder
from diffusion_art.models.trainable import Trainable
from diffusion_art.sizes import Size, named, size_named
from diffusion_art.tensors import Conditioning

Network = Callable[[Tensor, Tensor, Conditioning], Tensor]  # (x_t [b c h w], t [b], cond) -> [b c h w]


class TextToImage(Trainable):
    """Backbone, schedule, prediction, text encoder and codec, checked against each other.

    `backbone` is either built, or still wants `channels`, `sample_size`, `cross_attention_dim` and
    `pooled_dim`, which are then those of the codec, the image size and the text encoder: so another text
    encoder is one override. `sizes` are those of the pictures where they are not all squares (`160x96`).

    Raises:
        UserError: sizes that do not agree (both numbers are named), sizes of pictures that do not fit the backbone, or
            epsilon prediction under a schedule that leaves no signal at t = 1.
    """

    called, use = "a text-to-image model", "it paints"

    def __init__(
        self,
        *,
        backbone: Backbone | Callable[..., Backbone],
        schedule: Schedule,
        prediction: Prediction,
        text_encoder: TextEncoder,
        codec: Codec,
        image_size_px: int,
        sizes: Sequence[str] = (),
    ):
        super().__init__()
        check_prediction(prediction, schedule)
        if image_size_px % codec.factor:
            raise UserError(
                f"image_size_px={image_size_px} is not a multiple of {codec.factor}, by which the codec "
                f"{type(codec).__name__} shrinks images. Choose another image_size_px, or model/codec=pixel."
            )
        agreed = {
            "channels": codec.channels,
            "sample_size": image_size_px // codec.factor,
            "cross_attention_dim": text_encoder.dim,
            "pooled_dim": text_encoder.pooled_dim,
        }
        self.backbone = backbone if isinstance(backbone, Backbone) else backbone(**agreed)
        if not isinstance(self.backbone, Backbone):
            raise UserError(
                f"model.backbone makes a {type(self.backbone).__name__}, which cannot be one: let it derive from "
                "diffusion_art.models.backbone.Backbone."
            )
        for name, wanted in agreed.items():
            if (built := getattr(self.backbone, name, None)) != wanted:
                raise UserError(
                    f"the backbone was built for {name}={built}, and its neighbours need {wanted} ("
                    f"{type(codec).__name__}, {type(text_encoder).__name__}, {image_size_px} px). "
                    f"Build it with {name}={wanted}."
                )
        self.schedule = schedule
        self.prediction = prediction
        self.text_encoder = text_encoder
        self.codec = codec
        self.image_size_px = image_size_px
        self.sizes: tuple[Size, ...] = tuple(map(size_named, sizes))
        for size in self.sizes:
            self._check_fits(size)

    @property
    def shards(self) -> Sequence[nn.Module]:
        return self.backbone.shards

    @property
    def device(self) -> torch.device:
        return next(self.backbone.parameters()).device

    @property
    def latent_shape(self) -> tuple[int, int, int]:
        """c h w of what we diffuse."""
        side = self.image_size_px // self.codec.factor
        return self.codec.channels, side, side

    def latent_shape_of(self, size: Size) -> tuple[int, int, int]:
        """c h w of what a picture of this size is painted in.

        Raises:
            UserError: the model was not trained on that size.
        """
        own = (self.image_size_px, self.image_size_px)
        if size != own and size not in self.sizes:
            known = ", ".join(map(named, self.sizes or (own,)))
            raise UserError(f"this model does not paint {named(size)}: it was trained on {known}. Take one of these.")
        return self.codec.channels, size[1] // self.codec.factor, size[0] // self.codec.factor

    def _check_fits(self, size: Size) -> None:
        multiple = self.codec.factor * self.backbone.side_multiple
        if size[0] % multiple or size[1] % multiple:
            raise UserError(
                f"pictures of {named(size)} px do not fit {type(self.backbone).__name__} and "
                f"{type(self.codec).__name__}, which take sides that are multiples of {multiple} px: build the shards "
                f"with image_size_px={self.image_size_px} bucket_step_px={multiple} (data.build.bucket_step_px of a "
                "training)."
            )

    def check_size(self, image_size_px: int) -> None:
        """UserError where the backbone cannot train on pictures of this size besides its own, or on their buckets."""
        multiple = self.codec.factor * self.backbone.side_multiple
        sides = {side * image_size_px for size in self.sizes for side in size}
        if image_size_px % multiple or any(side % (multiple * self.image_size_px) for side in sides):
            raise UserError(
                f"pictures of {image_size_px} px do not fit {type(self.backbone).__name__} and "
                f"{type(self.codec).__name__}, which take multiples of {multiple} px: shrink them less in "
                "data.curriculum.stages, or curriculum=none."
            )

    def schedule_of(self, latents: Float[Tensor, "b c h w"]) -> Schedule:
        """The schedule for latents of another size: a time hides as much of a small picture as of a large one.

        Buckets have nearly the area of their square, and its schedule. What shrinks them are whole numbers.
        """
        height, width = latents.shape[-2:]
        ratio = math.sqrt(height * width) / self.latent_shape[-1]
        if height != width:
            ratio = 1 / max(1, math.floor(1 / ratio + 1e-6))
        return self.schedule if ratio == 1 else self.schedule.resized(ratio)

    def encode_captions(self, captions: Sequence[str]) -> Conditioning:
        """What the backbone is told about each caption; `""` is no caption."""
        return self.text_encoder.encode(list(captions))

    def denoise(
        self, x_t: Float[Tensor, "b c h w"], t: Float[Tensor, " b"], cond: Conditioning
    ) -> Float[Tensor, "b c h w"]:
        """The raw backbone: what it outputs is `prediction`'s business."""
        return self.backbone(x_t, t, cond)

    def denoiser(
        self,
        cond: Conditioning,
        *,
        null: Conditioning | None = None,
        worse: Denoiser | None = None,
        guidance_scale: float = 1.0,
        interval: tuple[float, float] | None = None,
        rescale: float = 0.0,
        threshold: float = 0.0,
        network: Network | None = None,
    ) -> Denoiser | Guidance:
        """x_0_hat for these captions, guided away from `null` (no caption if not given), or from `worse`.

        Guidance doubles the batch of one network call; `worse`, another model's denoiser for the same captions, is
        called beside ours. At scale 1 there is none, and the other side is not asked; at 0, where nothing tempers it,
        it is that side's denoiser. `network` may stand in for our backbone.
        """
        plain = self.bind(cond, network=network)
        if guidance_scale == 1:
            return plain
        tempered = {"guidance_scale": guidance_scale, "interval": interval, "rescale": rescale, "threshold": threshold}
        unguided = guidance_scale == 0 and not (interval or rescale or threshold)
        if worse is not None:
            return worse if unguided else Guidance(plain, worse, **tempered)
        null = self.encode_captions([""] * len(cond)) if null is None else null
        if unguided:
            return self.bind(null, network=network)
        return Guidance(plain, doubled=self.bind(Conditioning.cat([cond, null]), network=network), **tempered)

    def bind(self, cond: Conditioning, *, network: Network | None = None) -> Denoiser:
        """x_0_hat for these captions, not guided. `network` may stand in for the backbone, such as a compiled one."""
        network = network or self.denoise
        return Denoiser(
            lambda x_t, t: network(x_t, t, cond),
            schedule=self.schedule,
            prediction=self.prediction,
            clip=self.codec.bounded,
        )

    @torch.no_grad()
    def generate(
        self,
        prompts: Sequence[str],
        *,
        seeds: Sequence[int],
        sampler: Sampler,
        guidance_scale: float = 1.0,
        negative_prompts: Sequence[str] | None = None,
        interval: tuple[float, float] | None = None,
        rescale: float = 0.0,
        threshold: float = 0.0,
        guide: TextToImage | None = None,
        network: Network | None = None,
        size: Size | None = None,
        batch_size: int = 16,
        callback: Callback | None = None,
        progress: bool = False,
    ) -> Float[Tensor, "b 3 h w"]:
        """Pictures in [-1, 1], one per prompt, on the CPU in float32, of one `size` (width, height) out of `sizes`; the
        square if not given.

        Each image has its own seed and generator, so row 7 is the same picture alone, in any batch and at
        any `batch_size`. An empty prompt asks for any picture (no caption); one longer than the text encoder
        reads is cut, and that is reported. `callback(step_index, t, x_t, x_0_hat)` is called for each batch.

        `interval`, `rescale` and `threshold` temper guidance (`diffusion/guidance.py`). `guide` is a worse model,
        smaller or less trained: guidance then leads away from what it paints for the same prompts (autoguidance).
        `network` may stand in for the backbone, such as one whose calls are replayed.

        Raises:
            UserError: no prompts, prompts that are not text, another number of seeds or negative prompts, a size that
                the model was not trained on, or a guide that works in another space or on another schedule, or comes
                with negative prompts.
        """
        prompts, seeds, negatives = _check_request(prompts, seeds, negative_prompts, batch_size)
        if guide is not None:
            self._check_guide(guide, negatives)
        shape = self.latent_shape if size is None else self.latent_shape_of(size)
        starts = range(0, len(prompts), batch_size)
        images = []
        for start in track(starts, "painting", disable=not progress, transient=True):
            rows = slice(start, start + batch_size)
            denoiser = self.denoiser(
                self.encode_captions(prompts[rows]),
                null=self.encode_captions(negatives[rows]) if guide is None else None,
                worse=guide.bind(guide.encode_captions(prompts[rows])) if guide is not None else None,
                guidance_scale=guidance_scale,
                interval=interval,
                rescale=rescale,
                threshold=threshold,
                network=network,
            )
            noise = NoiseSource(seeds[rows], shape, device=self.device)
            x_0 = sampler.sample(denoiser, noise.x_T(), noise=noise, callback=callback)
            images.append(self.codec.decode(x_0).float().clamp(-1, 1).cpu())
        return torch.cat(images)

    def _check_guide(self, guide: TextToImage, negatives: Sequence[str]) -> None:
        """Two models can share an x_t only where it means the same to both."""
        if any(negatives):
            raise UserError(
                "autoguidance leads away from the guide's own picture, so "
                f"negative_prompt={next(filter(None, negatives))!r} has no place in it: drop it, or the guide."
            )
        if guide.device != self.device:
            raise UserError(f"the guide is on {guide.device} and this model on {self.device}: load both on one device.")
        alike = type(guide.codec) is type(self.codec) and guide.codec.describe() == self.codec.describe()
        if not alike or guide.latent_shape != self.latent_shape:
            raise UserError(
                f"the guide diffuses {type(guide.codec).__name__} latents of shape {list(guide.latent_shape)}, and "
                f"this model {type(self.codec).__name__} ones of {list(self.latent_shape)}: take one of the same data."
            )
        t = torch.linspace(0, 1, 101, dtype=torch.float64)
        pairs = zip(guide.schedule.alpha_sigma(t), self.schedule.alpha_sigma(t))
        if not all(torch.allclose(theirs, ours) for theirs, ours in pairs):
            raise UserError(
                f"the guide was trained under {guide.schedule!r}, and this model under {self.schedule!r}: the same t "
                "means other noise to it. Take a guide of the same model/schedule."
            )


def _check_request(
    prompts: Any, seeds: Any, negative_prompts: Any, batch_size: int
) -> tuple[list[str], list[int], list[str]]:
    prompts, seeds = (
        list(prompts) if not isinstance(prompts, str) else [prompts],
        [int(seed) for seed in seeds],
    )
    if not prompts:
        raise UserError("there is nothing to paint: give at least one prompt, such as 'prompts=[\"a red house\"]'.")
    negatives = [""] * len(prompts) if negative_prompts is None else list(negative_prompts)
    for prompt in (*prompts, *negatives):
        if not isinstance(prompt, str):
            raise UserError(f"a prompt is text, and {prompt!r} is not: put it in quotes.")
    for name, values in (("seeds", seeds), ("negative prompts", negatives)):
        if len(values) != len(prompts):
            raise UserError(f"{len(prompts)} prompts came with {len(values)} {name}: give one for each prompt.")
    if batch_size < 1:
        raise UserError(f"batch_size={batch_size} is too small: it is the number of pictures painted at a time.")
    return prompts, seeds, negatives
