"""The one model that all sides serve, painted with in the one way.

Around it, a `Pipeline` is what its name says to most people: diffusers' own UNet with the model's weights, diffusers'
scheduler, and the loop of diffusers' pipelines. It takes as long as our `generate` under autocast.
"""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence

import torch
from diffusers.schedulers.scheduling_dpmsolver_multistep import DPMSolverMultistepScheduler
from torch import Tensor

from diffusion_art.accel import switch
from diffusion_art.accel.graphs import Captured
from diffusion_art.checkpoints import load_text_to_image
from diffusion_art.diffusion import denoiser, schedules
from diffusion_art.diffusion.samplers import by_name
from diffusion_art.diffusion.samplers.ddim import DDIM
from diffusion_art.images import to_pil
from diffusion_art.models.text_to_image import TextToImage
from diffusion_art.models.unet import UNet
from diffusion_art.serving.engine.engine import autocast_dtype

GUIDANCE_SCALE = 3.0
SAMPLER = "dpmpp_2m"
EIR_SAMPLER = DDIM(num_steps=200, eta=0.2)  # the tutorial's, in float32


def load(path: str) -> TextToImage:
    return load_text_to_image(path)


class Pipeline:
    """As StableDiffusionPipeline goes about it, in `dtype`; guided rows and null rows in one call."""

    def __init__(self, model: TextToImage, *, dtype: torch.dtype = torch.bfloat16) -> None:
        assert isinstance(model.backbone, UNet)
        assert isinstance(model.schedule, schedules.Flow), "the scheduler below is set up for flow matching"
        assert isinstance(model.prediction, denoiser.Flow)
        self.model, self.dtype = model, dtype
        self.unet = model.backbone.as_diffusers()
        self.unet.to(dtype=dtype, memory_format=torch.channels_last).eval()  # type: ignore[call-overload]
        self.scheduler = DPMSolverMultistepScheduler(
            prediction_type="flow_prediction", use_flow_sigmas=True, flow_shift=1.0, final_sigmas_type="zero"
        )

    def __call__(self, prompts: Sequence[str], seeds: Sequence[int], num_steps: int) -> list[str]:
        """A base64 PNG for each prompt, all in one batch."""
        return [png_base64(image) for image in self.images(prompts, seeds, num_steps)]

    @torch.no_grad()
    def images(self, prompts: Sequence[str], seeds: Sequence[int], num_steps: int) -> Tensor:
        """[b 3 h w] in [-1, 1]."""
        cond = self.model.encode_captions([""] * len(prompts) + list(prompts))
        noise = [torch.randn(self.model.latent_shape, generator=torch.Generator().manual_seed(s)) for s in seeds]
        latents = torch.stack(noise)
        self.scheduler.set_timesteps(num_steps)
        for t in self.scheduler.timesteps:
            shown = self.scheduler.scale_model_input(torch.cat([latents] * 2), t)
            answer = self.unet(
                shown.to(self.dtype),
                t,
                encoder_hidden_states=cond.tokens.to(self.dtype),
                encoder_attention_mask=cond.mask,
                class_labels=cond.pooled.to(self.dtype),
                return_dict=False,
            )[0].float()
            plain, guided = answer.chunk(2)
            latents = self.scheduler.step(plain + GUIDANCE_SCALE * (guided - plain), t, latents, return_dict=False)[0]
        return self.model.codec.decode(latents).clamp(-1, 1)


class Ours:
    """Our own network, sampler and precision, and on a GPU its calls replayed as our server has them."""

    def __init__(self, model: TextToImage) -> None:
        self.model = model.eval()
        self.precision = autocast_dtype("auto", model.device)
        replays = model.device.type == "cuda" and switch.ACCELERATES
        self.network = Captured.of(model.backbone, dtype=self.precision) if replays else None

    def __call__(self, prompts: Sequence[str], seeds: Sequence[int], num_steps: int) -> list[str]:
        """A base64 PNG for each prompt, all in one batch."""
        how = {"sampler": by_name(SAMPLER, num_steps=num_steps), "guidance_scale": GUIDANCE_SCALE}
        with torch.autocast(self.model.device.type, self.precision, enabled=self.precision is not None):
            images = self.model.generate(prompts, seeds=seeds, network=self.network, batch_size=len(prompts), **how)
        return [png_base64(image) for image in images]


def png_base64(image: Tensor) -> str:
    file = io.BytesIO()
    to_pil(image).save(file, format="PNG")
    return base64.b64encode(file.getvalue()).decode()
