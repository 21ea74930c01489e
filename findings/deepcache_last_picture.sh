#!/usr/bin/env bash
# DeepCache 0.1.1, diffusers 0.42.1, torch 2.14.1: `DeepCacheSDHelper` computes the deep layers of the UNet in every third step, say, and uses what it has kept in the
# other two. One would guess that each call of the pipeline begins by computing them. Which steps do is counted from the first step of the first call ever, and what
# is kept outlives the call. Image-to-image begins at a step that depends on `strength`: if it is not a whole number of intervals away from that of the first call,
# its first steps are painted with the deep layers of the last picture, of another prompt and perhaps another user. Where both are of one size, nothing is said.
# Text-to-image always begins at 0, so it is right, unless an image-to-image call came first through the same UNet. Call `helper.disable()` and `helper.enable()`
# between pictures.
# Seen: 20 steps, interval 3, a picture at strength 0.5 after one at 0.6: 6.6 % away from itself, and elsewhere for each picture before it; after 0.5 or 0.65, or
# enabled anew, 0 %.
set -euo pipefail
work=$(mktemp -d) && trap 'rm -rf "$work"' EXIT
python3 -m venv --without-pip "$work/venv"
python3 -m pip --python "$work/venv/bin/python" install --quiet --no-compile --disable-pip-version-check torch==2.14.1 diffusers==0.42.1 DeepCache==0.1.1 transformers==5.24.0 numpy
HF_HUB_OFFLINE=1 TRANSFORMERS_VERBOSITY=error OMP_NUM_THREADS=1 "$work/venv/bin/python" -W ignore - <<'PY'
from importlib.metadata import version

import torch
from DeepCache import DeepCacheSDHelper
from diffusers import AutoencoderKL, DDIMScheduler, StableDiffusionImg2ImgPipeline, UNet2DConditionModel

STEPS, INTERVAL = 20, 3


def pipeline():
    """Stable Diffusion of the least size, with random weights, for prompts that are encoded already."""
    torch.manual_seed(0)
    unet = UNet2DConditionModel(
        sample_size=16,
        block_out_channels=(16, 32),
        layers_per_block=1,
        norm_num_groups=8,
        cross_attention_dim=8,
        attention_head_dim=4,
        down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"),
    )
    blocks = {"down_block_types": ("DownEncoderBlock2D",) * 2, "up_block_types": ("UpDecoderBlock2D",) * 2}
    vae = AutoencoderKL(block_out_channels=(8, 16), norm_num_groups=4, **blocks)
    scheduler = DDIMScheduler(beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", clip_sample=False)
    parts = {"vae": vae.eval(), "unet": unet.eval(), "scheduler": scheduler, "text_encoder": None, "tokenizer": None}
    made = StableDiffusionImg2ImgPipeline(**parts, safety_checker=None, feature_extractor=None, requires_safety_checker=False)
    made.set_progress_bar_config(disable=True)
    return made


def painted(name, strength):
    """A picture of its own prompt, painted over, with the same seed each time."""
    draw = torch.Generator().manual_seed(sum(map(ord, name)))
    prompt, picture = torch.randn(1, 5, 8, generator=draw), torch.rand(1, 3, 32, 32, generator=draw)
    given = {"prompt_embeds": prompt, "negative_prompt_embeds": torch.zeros_like(prompt), "image": picture, "strength": strength}
    return pipe(**given, num_inference_steps=STEPS, output_type="latent", generator=torch.Generator().manual_seed(0)).images


def away(a, b):
    return ((a - b).norm() / b.norm()).item()


print(*(f"{name} {version(name)}" for name in ("DeepCache", "diffusers", "torch")))
pipe = pipeline()
helper = DeepCacheSDHelper(pipe=pipe)
helper.set_params(cache_interval=INTERVAL, cache_branch_id=0)
helper.enable()
alone = painted("mine", 0.5)
for strength in (0.5, 0.6, 0.65):
    after = {}
    for before in ("theirs", "another"):
        helper.disable()
        helper.enable()
        painted(before, strength)
        after[before] = painted("mine", 0.5)
    off, apart = (away(after["theirs"], other) for other in (alone, after["another"]))
    print(f"after a picture at strength {strength}: {off:.1%} away from itself; after another one: {apart:.1%} apart")
    late = round(STEPS * (strength - 0.5)) % INTERVAL != 0
    assert (off > 0.02 and apart > 0.01) if late else off == apart == 0, (strength, off, apart)
PY
