"""A model as a folder of diffusers: each part under its own class, and `pipeline.py` that paints with them.

    unet/           UNet2DConditionModel
    vae/            the VAE, of a model that paints latents
    scheduler/      one of diffusers', that takes the steps of the run's sampler
    tokenizer/      transformers' CLIPTokenizer
    text_encoder/   transformers' CLIPTextModelWithProjection, or TextTower of the text_tower.py in it
    pipeline.py     DiffusionArtPipeline
    README.md       the model card

In z = x_t / (alpha + sigma) every noise schedule is the straight path, and DDIM, DPM-Solver++ and UniPC take the same
steps there. So one scheduler of diffusers for flow models serves all of ours (`pipeline.py` uses it so).

Before it is written, the pipeline paints a picture beside the model itself, and both must be the same.
"""

from __future__ import annotations

import copy
import json
import logging
import shutil
from pathlib import Path
from typing import Any

import diffusers
import torch
from diffusers.models.modeling_utils import ModelMixin
from diffusers.schedulers.scheduling_dpmsolver_multistep import DPMSolverMultistepScheduler
from diffusers.schedulers.scheduling_flow_match_euler_discrete import FlowMatchEulerDiscreteScheduler
from diffusers.schedulers.scheduling_unipc_multistep import UniPCMultistepScheduler

from diffusion_art.diffusion.samplers import Sampler
from diffusion_art.diffusion.samplers.consistency import Consistency
from diffusion_art.diffusion.samplers.ddim import DDIM
from diffusion_art.diffusion.samplers.dpm_solver import DPMSolverPP2M, UniPC
from diffusion_art.diffusion.samplers.euler import Euler
from diffusion_art.diffusion.schedules import Schedule
from diffusion_art.errors import UserError
from diffusion_art.models.text_encoder import OpenClipPretrained
from diffusion_art.models.tokenizer import ClipTokenizer
from diffusion_art.models.unet import UNet
from diffusion_art.models.vae import Vae
from diffusion_art.sharing import pipeline, text_tower
from diffusion_art.sharing.clip_text import clip_text_model
from diffusion_art.sharing.folder import merges, new_folder, told_in, vocabulary, write_cards, write_tokenizer
from diffusion_art.sharing.painting import Painting
from diffusion_art.sharing.pipeline import DiffusionArtPipeline
from diffusion_art.sharing.text_tower import TextTower

log = logging.getLogger(__name__)

SCHEDULES = ("Flow", "CosineSchedule", "SquaredCosCapV2", "LinearBeta")  # that pipeline.py knows
PREDICTIONS = ("Epsilon", "V", "X0", "Flow", "Edm")
CLOSE = 1 / 255  # of the range of a picture in [0, 1]
CHECKED_STEPS = 4
INDEX = "model_index.json"
CLASS = ["pipeline", DiffusionArtPipeline.__name__]  # by which a folder of ours is known
PARTS = ("unet", "vae", "scheduler", "tokenizer", "text_encoder", "pipeline.py", INDEX)


def write_diffusers(path: Path, painting: Painting) -> Path:
    """The folder.

    Raises:
        UserError: a part that diffusers has not, or `path` holds something else.
    """
    pipe = diffusers_pipeline(painting)
    with new_folder(path, former=told_in(path / INDEX).get("_class_name") == CLASS, parts=PARTS) as folder:
        _check(pipe, painting)
        vae = ("vae",) if pipe.vae is not None else ()
        for name in ("unet", "text_encoder", *vae):
            torch.nn.Module.to(getattr(pipe, name), painting.dtype)  # diffusers' own has no types
        for name in ("unet", "scheduler", "tokenizer", "text_encoder", *vae):
            getattr(pipe, name).save_pretrained(folder / name)
        write_tokenizer(folder / "tokenizer", painting.tokenizer)  # for older versions
        shutil.copyfile(str(pipeline.__file__), folder / "pipeline.py")
        if isinstance(pipe.text_encoder, TextTower):
            shutil.copyfile(str(text_tower.__file__), folder / "text_encoder" / "text_tower.py")
        (folder / INDEX).write_text(json.dumps(_index(pipe), indent=2) + "\n")
        write_cards(folder, painting, library="diffusers", how=_how(painting, path.name))
    return path


def diffusers_pipeline(painting: Painting) -> Any:
    """The pipeline in this process, in float32."""
    model = painting.model
    if not isinstance(model.backbone, UNet):
        raise UserError(
            f"{painting.run.checkpoint} has a {type(model.backbone).__name__}, and diffusers has none: export it with "
            "format=file or format=onnx."
        )
    for part, known in (("schedule", SCHEDULES), ("prediction", PREDICTIONS)):
        name = type(getattr(model, part)).__name__
        if name not in known:
            raise UserError(f"pipeline.py does not know the {part} {name}: export the run with format=file.")
    pipe: Any = DiffusionArtPipeline
    return pipe(
        unet=model.backbone.as_diffusers(),
        scheduler=scheduler_of(painting.sampler, model.schedule),
        tokenizer=_tokenizer(painting.tokenizer),
        text_encoder=_text_encoder(model.text_encoder),
        vae=copy.deepcopy(painting.vae.net).to(model.device) if painting.vae else None,
        painting={
            **_latents(painting.vae),
            "schedule": painting.settings_of("schedule"),
            "prediction": painting.settings_of("prediction"),
            "unshuffle": painting.unshuffle,
            "num_inference_steps": painting.sampler.num_steps,
            "spacing": painting.sampler.spacing,
            "times": list(painting.sampler.times) if painting.sampler.times else None,
            "guidance_scale": painting.guidance_scale,
            "guidance": painting.guidance,
        },
    )


def _latents(vae: Vae | None) -> dict[str, Any]:
    """How the pipeline undoes latents = (z - shift) scale."""
    if vae is None:
        return {}
    return {"latents": {"scale": vae.scale.flatten().tolist(), "shift": vae.shift.flatten().tolist()}}


def _tokenizer(tokenizer: ClipTokenizer) -> Any:
    from transformers import CLIPTokenizer  # pyright: ignore[reportMissingImports]  -- of the extra [share]

    return CLIPTokenizer(
        vocab=vocabulary(tokenizer),
        merges=merges(tokenizer),  # pyright: ignore[reportArgumentType]  -- pairs, as it reads them from a file
        model_max_length=tokenizer.context_length,
    )


def _text_encoder(encoder: Any) -> Any:
    """transformers' model of a frozen CLIP; of a tower trained along, the class that travels with the folder."""
    if isinstance(encoder, OpenClipPretrained):
        return clip_text_model(encoder)
    tower = TextTower(
        width=encoder.dim,
        layers=len(encoder.blocks),
        heads=encoder.heads,
        hidden=encoder.blocks[0].hidden,
        vocab_size=encoder.tokenizer.vocab_size,
        context_length=encoder.context_length,
        pooled_dim=encoder.pooled_dim,
    )
    tower.load_state_dict(encoder.state_dict())
    return tower.eval()


def _check(pipe: Any, painting: Painting) -> None:
    """Both paint the same picture from the same noise, in a few steps of the run's sampler."""
    steps = min(painting.sampler.num_steps, CHECKED_STEPS)
    sampler, prompts = painting.sampler.in_steps(steps), painting.prompts[:1]
    ours = painting.model.generate(
        prompts, seeds=[0], sampler=sampler, guidance_scale=painting.guidance_scale, **painting.guidance
    )
    pipe.set_progress_bar_config(disable=True)
    given = None if steps == painting.sampler.num_steps else steps
    generator = [torch.Generator().manual_seed(0)]
    theirs = pipe(prompts, num_inference_steps=given, generator=generator, output_type="pt").images
    apart = (theirs - (ours / 2 + 0.5)).abs().max().item()
    if not apart <= CLOSE:
        raise UserError(
            f"diffusers' picture is {apart * 255:.1f} steps of 255 from ours, so nothing was written; export the run "
            "with format=file, and tell us its config."
        )
    log.info("a picture in %d steps, painted by both: at most %.2f steps of 255 apart", steps, apart * 255)


def _index(pipe: Any) -> dict[str, Any]:
    ours = isinstance(pipe.text_encoder, ModelMixin)
    return {
        "_class_name": CLASS,
        "_diffusers_version": diffusers.__version__,
        "painting": dict(pipe.config["painting"]),
        "scheduler": ["diffusers", type(pipe.scheduler).__name__],
        "text_encoder": ["text_tower" if ours else "transformers", type(pipe.text_encoder).__name__],
        "tokenizer": ["transformers", type(pipe.tokenizer).__name__],
        "unet": ["diffusers", type(pipe.unet).__name__],
        **({"vae": ["diffusers", type(pipe.vae).__name__]} if pipe.vae is not None else {}),
    }


def _how(painting: Painting, folder: str) -> list[str]:
    prompt = painting.prompts[0].replace('"', "'")
    return [
        "With diffusers and transformers; `pipeline.py` in this folder is run, so read it first:",
        "",
        "```python",
        "import torch",
        "from diffusers import DiffusionPipeline",
        "",
        f'folder = "{folder}"  # or its name on the hub',
        "pipe = DiffusionPipeline.from_pretrained(folder, trust_remote_code=True)",
        f'pipe("{prompt}", generator=torch.Generator().manual_seed(0)).images[0].save("picture.png")',
        "```",
    ]


SOLVER: dict[str, Any] = {
    "solver_order": 2,
    "prediction_type": "sample",
    "use_flow_sigmas": True,
    "final_sigmas_type": "zero",
}


def scheduler_of(sampler: Sampler, schedule: Schedule) -> Any:
    """A scheduler that takes the sampler's steps.

    Raises:
        UserError: diffusers has none.
    """
    if isinstance(sampler, DPMSolverPP2M):
        return DPMSolverMultistepScheduler(**SOLVER)
    if isinstance(sampler, UniPC):  # which has nothing to correct after a step from pure noise
        return UniPCMultistepScheduler(**SOLVER, disable_corrector=[0] if schedule.zero_terminal_snr else [])
    if isinstance(sampler, Euler) or (isinstance(sampler, DDIM) and sampler.eta == 0):
        return FlowMatchEulerDiscreteScheduler()
    if isinstance(sampler, Consistency):
        return FlowMatchEulerDiscreteScheduler(stochastic_sampling=True)
    eta = f" with eta={sampler.eta:g}" if isinstance(sampler, DDIM) else ""
    raise UserError(
        f"the run paints with {sampler.name}{eta}, which no scheduler of diffusers does in every noise schedule: "
        "export it with another sampler, such as sampler=dpmpp_2m."
    )
