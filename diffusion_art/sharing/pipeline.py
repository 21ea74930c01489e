"""Painting with a model of diffusion_art by diffusers alone. This file lies in the folder that it paints from:

    pipe = DiffusionPipeline.from_pretrained(FOLDER, trust_remote_code=True)
    pipe("a red house", generator=torch.Generator().manual_seed(0)).images[0].save("house.png")

No pipeline of diffusers itself does it: this UNet works on pixels, or on a VAE's latents, reads the caption's words by
cross-attention and its pooled vector as `class_labels`.

The scheduler is one of diffusers'. It works in z = x_t / (alpha + sigma), in which every noise schedule is a straight
path: z = (1 - s) x_0 + s noise with s = sigma / (alpha + sigma). The steps of DDIM, DPM-Solver++ and UniPC are the same
in these coordinates. `painting` in model_index.json holds the noise schedule, the prediction and the guidance.
"""

import html
import inspect
import json
import math
import shutil
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import torch
from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel
from diffusers.pipelines.pipeline_utils import DiffusionPipeline, ImagePipelineOutput
from diffusers.utils.import_utils import is_ftfy_available
from diffusers.utils.torch_utils import randn_tensor

CLOSEST_TO_NOISE = 1 - 1e-6  # UniPC takes the logarithm of 1 - s
EDGE = 1e-6  # what rounding may take from a time that lies on an edge of guidance's interval


class DiffusionArtPipeline(DiffusionPipeline):
    """Pictures from captions. `guidance_scale` 1 is none, 0 paints without the caption."""

    model_cpu_offload_seq = "text_encoder->unet->vae"
    _optional_components = ["vae"]  # noqa: RUF012 -- as diffusers has it

    def __init__(
        self, unet: UNet2DConditionModel, scheduler, tokenizer, text_encoder, vae=None, painting: dict | None = None
    ):
        super().__init__()
        self.register_modules(unet=unet, scheduler=scheduler, tokenizer=tokenizer, text_encoder=text_encoder, vae=vae)
        self.register_to_config(painting=painting)

    @torch.no_grad()
    def __call__(
        self,
        prompt: str | list[str],
        negative_prompt: str | list[str] | None = None,
        num_inference_steps: int | None = None,
        guidance_scale: float | None = None,
        num_images_per_prompt: int = 1,
        generator: torch.Generator | list[torch.Generator] | None = None,
        latents: torch.Tensor | None = None,
        output_type: str = "pil",
        return_dict: bool = True,
        callback_on_step_end=None,
        height: int | None = None,
        width: int | None = None,
    ):
        """What is not given is as in the training run's own sample grids. `height` and `width` are the model's own.

        `latents` are unit noise of the UNet's input shape, drawn by `generator` if not given. `output_type` is pil, np,
        pt (in [0, 1]) or latent. `callback_on_step_end(pipe, step, timestep, {"latents": z})` follows each step.
        """
        settings = self.config["painting"]
        self._check(prompt, num_inference_steps, height, width)
        prompts = [text for text in _listed(prompt) for _ in range(num_images_per_prompt)]
        negatives = _listed(negative_prompt or "")
        negatives = negatives * len(prompts) if len(negatives) == 1 else _repeated(negatives, num_images_per_prompt)
        if len(negatives) != len(prompts):
            raise ValueError(f"{len(prompts)} prompts came with {len(negatives)} negative prompts: give one for each.")
        scale = settings["guidance_scale"] if guidance_scale is None else guidance_scale
        cond = self.encode_prompt([*prompts, *negatives])

        times = _times(settings, num_inference_steps)
        alphas, sigmas = noise_scales(times, **settings["schedule"])
        shares, norms = sigmas / (alphas + sigmas), alphas + sigmas
        straight = self._straight()
        self._set_steps(shares)
        takes = inspect.signature(self.scheduler.step).parameters
        drawing = {"generator": generator} if "generator" in takes else {}
        z = self._noise(len(prompts), generator, latents) / norms[0]
        bar: Any = self.progress_bar
        for step, timestep in enumerate(bar(self.scheduler.timesteps)):
            x_0 = self._x_0(z * norms[step], times[step], alphas[step], sigmas[step], cond, scale)
            out = (z - x_0) / shares[step] if straight else x_0
            z = self.scheduler.step(out, timestep, z, **drawing, return_dict=False)[0]
            if step == 0 and alphas[0] == 0 and hasattr(self.scheduler, "solver_p"):
                self.scheduler.lower_order_nums = 0  # the step after an infinite one is UniPC's of first order
            if callback_on_step_end is not None:
                z = (callback_on_step_end(self, step, timestep, {"latents": z}) or {}).get("latents", z)
        if not z.isfinite().all():
            raise ValueError(f"{type(self.scheduler).__name__} cannot end at no noise: take another scheduler.")
        images = self._pictures(z, output_type)
        self.maybe_free_model_hooks()
        return ImagePipelineOutput(images=images) if return_dict else (images,)

    def save_pretrained(self, save_directory, *args, **kwargs):
        """As diffusers does, with the code that it leaves out: this file, and that of the text tower.

        Raises:
            ValueError: push_to_hub, which would come before the code.
        """
        if kwargs.get("push_to_hub"):
            raise ValueError("save the pipeline without push_to_hub, then upload its folder: hf upload REPO FOLDER")
        super().save_pretrained(save_directory, *args, **kwargs)
        index = Path(save_directory) / "model_index.json"
        told = json.loads(index.read_text())
        told["_class_name"] = ["pipeline", type(self).__name__]
        told.pop("_name_or_path", None)  # of this machine
        shutil.copyfile(__file__, index.with_name("pipeline.py"))
        if (tower := type(self.text_encoder)).__module__.endswith("text_tower"):
            told["text_encoder"] = ["text_tower", tower.__name__]
            shutil.copyfile(inspect.getfile(tower), index.parent / "text_encoder" / "text_tower.py")
        index.write_text(json.dumps(told, indent=2) + "\n")

    def _check(self, prompt, num_steps: int | None, height: int | None, width: int | None) -> None:
        """ValueError for what is not painted."""
        if prompt is None or (not isinstance(prompt, str) and not len(prompt)):
            raise ValueError(f"prompt={prompt!r} is none: give a text, or a list of them.")
        if num_steps is not None and num_steps < 1:
            raise ValueError(f"num_inference_steps={num_steps} must be 1 or more.")
        if self.vae is None:
            factor = self.config["painting"]["unshuffle"]
        else:
            factor = 2 ** (len(self.vae.config.block_out_channels) - 1)
        own = self.unet.config.sample_size * factor
        if (asked := (width or own, height or own)) != (own, own):
            raise ValueError(f"this model paints {own}x{own}, and not {asked[0]}x{asked[1]}: resize its pictures.")

    def encode_prompt(self, prompts: list[str]) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Token states [b l d], True on real tokens [b l], one pooled vector each [b p]."""
        told = self.tokenizer(
            [clean(text) for text in prompts],
            padding=True,
            truncation=True,
            max_length=self.tokenizer.model_max_length,
            return_tensors="pt",
        ).to(self._execution_device)
        states = self.text_encoder(input_ids=told.input_ids, attention_mask=told.attention_mask)
        dtype = self.unet.dtype
        return states.last_hidden_state.to(dtype), told.attention_mask.bool(), states.text_embeds.to(dtype)

    def _straight(self) -> bool:
        """Whether the scheduler asks for dz / ds, and not for x_0. Its config also holds what it left of another's.

        Raises:
            ValueError: it asks for something else.
        """
        if "prediction_type" not in inspect.signature(type(self.scheduler).__init__).parameters:
            return True
        if (asked := self.scheduler.config.prediction_type) not in ("sample", "flow_prediction"):
            name = type(self.scheduler).__name__
            raise ValueError(f'{name} asks for {asked}: make it with prediction_type="sample", use_flow_sigmas=True.')
        return asked == "flow_prediction"

    def _set_steps(self, shares: np.ndarray) -> None:
        self.scheduler.set_timesteps(len(shares) - 1, device=self._execution_device)
        first = min(shares[0], CLOSEST_TO_NOISE) if hasattr(self.scheduler, "solver_p") else shares[0]
        self.scheduler.sigmas = torch.tensor([first, *shares[1:]], dtype=torch.float32)
        self.scheduler.set_begin_index(0)

    def _noise(self, count: int, generator, latents: torch.Tensor | None) -> torch.Tensor:
        config, device = self.unet.config, self._execution_device
        shape = (count, config.in_channels, config.sample_size, config.sample_size)
        if latents is None:
            return randn_tensor(shape, generator=generator, device=device, dtype=torch.float32)
        if tuple(latents.shape) != shape:
            raise ValueError(f"latents have the shape {tuple(latents.shape)}, and the UNet takes {shape}.")
        return latents.to(device, torch.float32)

    def _x_0(self, x, t: float, alpha: float, sigma: float, cond, scale: float) -> torch.Tensor:
        """The guided estimate of the picture, in [-1, 1], or of its latents."""
        guidance, rows = self.config["painting"]["guidance"], len(x)
        low, high = guidance.get("interval") or (0, 1)
        if scale == 1 or not low - EDGE <= t <= high + EDGE:
            return self._clipped(self._estimate(x, t, alpha, sigma, [part[:rows] for part in cond]), 0)
        if scale == 0 and not any(guidance.values()):
            return self._clipped(self._estimate(x, t, alpha, sigma, [part[rows:] for part in cond]), 0)
        told, null = self._estimate(torch.cat([x, x]), t, alpha, sigma, cond).chunk(2)
        guided = null + scale * (told - null)
        if rescale := guidance.get("rescale"):
            guided = guided * (1 + rescale * (_spread(told) / _spread(guided) - 1))
        return self._clipped(guided, guidance.get("threshold") or 0)

    def _clipped(self, x_0: torch.Tensor, threshold: float) -> torch.Tensor:
        """Pixels have a range, and a VAE's latents have none."""
        return x_0 if self.vae is not None else _bounded(x_0, threshold)

    def _estimate(self, x, t: float, alpha: float, sigma: float, cond) -> torch.Tensor:
        shown, clock, of_x, of_out = view(t, alpha, sigma, **self.config["painting"]["prediction"])
        tokens, mask, pooled = cond
        out = self.unet(
            (shown * x).to(self.unet.dtype),
            torch.full((len(x),), 1000 * clock, dtype=torch.float32, device=x.device),
            encoder_hidden_states=tokens,
            encoder_attention_mask=mask,
            class_labels=pooled,
            return_dict=False,
        )[0]
        return of_x * x + of_out * out.float()

    def _pictures(self, z: torch.Tensor, output_type: str) -> Any:
        if output_type == "latent":
            return z
        pictures = self._decoded(z).clamp(-1, 1) / 2 + 0.5
        if output_type == "pt":
            return pictures
        pictures = pictures.permute(0, 2, 3, 1).cpu().numpy()
        return pictures if output_type == "np" else self.numpy_to_pil(pictures)

    def _decoded(self, z: torch.Tensor) -> torch.Tensor:
        settings = self.config["painting"]
        if self.vae is None:
            return torch.nn.functional.pixel_shuffle(z, settings["unshuffle"])
        told = settings["latents"]
        scale, shift = (torch.tensor(told[name], device=z.device)[:, None, None] for name in ("scale", "shift"))
        return self.vae.decode((z / scale + shift).to(self.vae.dtype)).sample.float()


def clean(text: str) -> str:
    """As the training captions were read; broken encodings are repaired where ftfy is installed."""
    text = import_module("ftfy").fix_text(text) if is_ftfy_available() else text
    return " ".join(html.unescape(html.unescape(text)).split()).lower()


def noise_scales(t: np.ndarray, name: str, **settings) -> tuple[np.ndarray, np.ndarray]:
    """alpha and sigma at times from 1, pure noise, to 0: x_t = alpha x_0 + sigma noise."""
    shift = settings.get("shift", 1.0)
    if name == "Flow":
        return (1 - t) / (1 + (shift - 1) * t), shift * t / (1 + (shift - 1) * t)
    if name == "CosineSchedule":
        rest = 0.0 if settings.get("zero_terminal_snr", True) else math.atan(math.exp(-7.5))
        angle = math.pi / 2 - rest
        alpha, sigma = np.sin(angle * (1 - t) + rest), shift * np.sin(angle * t)
    else:
        knots = _knots(name, **settings)
        place = t * (len(knots) - 1)
        left = np.clip(np.floor(place), 0, len(knots) - 2).astype(int)
        chord = knots[left] + (place - left)[..., None] * (knots[left + 1] - knots[left])
        alpha, sigma = chord[..., 0], chord[..., 1]
    norm = np.hypot(alpha, sigma)
    return alpha / norm, sigma / norm


def _knots(name: str, num_train_timesteps=1000, zero_terminal_snr=False, beta_start=1e-4, beta_end=0.02) -> np.ndarray:
    """alpha and sigma at t = 0, 1/n, ..., 1 of a schedule of DDPM."""
    if name == "LinearBeta":
        betas = np.linspace(beta_start, beta_end, num_train_timesteps)
    else:
        level = np.cos((np.linspace(0, 1, num_train_timesteps + 1) + 0.008) / 1.008 * math.pi / 2) ** 2
        betas = np.minimum(1 - level[1:] / level[:-1], 0.999)
    alpha = np.sqrt(np.cumprod(1 - betas))
    if zero_terminal_snr:
        alpha = (alpha - alpha[-1]) * (alpha[0] / (alpha[0] - alpha[-1]))
    alpha = np.concatenate([[1.0], alpha])
    return np.stack([alpha, np.sqrt(1 - alpha**2)], axis=-1)


def view(t: float, alpha: float, sigma: float, name: str, sigma_data: float = 0.5):
    """What the UNet is shown of x_t, its clock in [0, 1], and x_0 = of_x x_t + of_out out."""
    if name == "X0":
        return 1.0, t, 0.0, 1.0
    if name == "Epsilon":
        return 1.0, t, 1 / alpha, -sigma / alpha
    if name == "V":
        return 1.0, t, alpha / (alpha**2 + sigma**2), -sigma / (alpha**2 + sigma**2)
    if name == "Flow":
        return 1.0, t, 1 / (alpha + sigma), -sigma / (alpha + sigma)
    spread = math.hypot(sigma, alpha * sigma_data)  # EDM's preconditioning
    log_s = math.log(sigma / alpha) if alpha else math.inf
    clock = (log_s - math.log(0.002)) / (math.log(80) - math.log(0.002))
    return 1 / spread, min(max(clock, 0.0), 1.0), alpha * sigma_data**2 / spread**2, sigma * sigma_data / spread


def _times(settings: dict, num_steps: int | None) -> np.ndarray:
    if num_steps is None and settings["times"]:
        return np.array(settings["times"])
    num_steps = num_steps or settings["num_inference_steps"]
    if settings["spacing"] == "uniform":
        return np.linspace(1, 0, num_steps + 1)
    alpha, sigma = (scale.item() for scale in noise_scales(np.ones(1), **settings["schedule"]))
    first = math.log(min(sigma / alpha, 80)) if alpha else math.log(80)
    ends = np.linspace(first, math.log(0.002), num_steps)
    if settings["spacing"] == "karras":
        ends = 7 * np.log(np.linspace(math.exp(first / 7), 0.002 ** (1 / 7), num_steps))
    return np.concatenate([[1.0], [_time_of(end, settings["schedule"]) for end in ends[1:]], [0.0]])


def _time_of(log_ratio: float, schedule: dict) -> float:
    """The time at which log(sigma / alpha) has this value, by bisection."""
    low, high = 0.0, 1.0
    for _ in range(60):
        middle = (low + high) / 2
        alpha, sigma = (scale.item() for scale in noise_scales(np.array([middle]), **schedule))
        low, high = (middle, high) if sigma < alpha * math.exp(log_ratio) else (low, middle)
    return high


def _bounded(x_0: torch.Tensor, share: float) -> torch.Tensor:
    """Within [-1, 1]: clipped, or by dynamic thresholding scaled until this share of a picture's values fits."""
    if not share:
        return x_0.clamp(-1, 1)
    count = max(1, math.ceil(share * x_0[0].numel()))
    limit = x_0.abs().flatten(1).kthvalue(count, dim=1).values.clamp(min=1)[:, None, None, None]
    return x_0.clamp(-limit, limit) / limit


def _spread(x: torch.Tensor) -> torch.Tensor:
    return x.std(dim=(1, 2, 3), keepdim=True, correction=0).clamp(min=1e-8)


def _listed(text: str | list[str]) -> list[str]:
    return [text] if isinstance(text, str) else list(text)


def _repeated(texts: list[str], count: int) -> list[str]:
    return [text for text in texts for _ in range(count)]
