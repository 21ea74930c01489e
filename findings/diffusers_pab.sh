#!/usr/bin/env bash
# diffusers 0.42.1, torch 2.13.0: Pyramid Attention Broadcast, `transformer.enable_cache(PyramidAttentionBroadcastConfig(...))`, is to use an attention layer's
# answer of one step again in the next. One would guess that prompt and negative prompt each have their own, since pipelines that call the network twice a step
# tell it which call is which (`cache_context("cond")` and `"uncond"`), and the other caches heed that. This one does not: it counts calls. With a skip range
# of 2 the call for the prompt is computed in each step and the call for the negative prompt gets its attention, so within the range of timesteps the negative
# prompt is not read, and nothing of the prompt's own is saved. Nothing is said. CogVideoX, the documentation's example, has both prompts in one batch, where
# all is well. With Flux and `true_cfg_scale` use FirstBlockCache, which keeps two states.
# Seen: Flux with a small network of random weights, 20 steps, `true_cfg_scale=4`, the documentation's settings: another negative prompt moves the picture by
# 0.0556 of its size without a cache, by 0.0190 with it, and by 0.0559 with it and both prompts in one batch. The cache moves the picture by 0.0327, and by
# 0.0008 with both in one batch.
set -euo pipefail
work=$(mktemp -d) && trap 'rm -rf "$work"' EXIT
python3 -m venv --without-pip "$work/venv"
python3 -m pip --python "$work/venv/bin/python" install --quiet --no-compile --disable-pip-version-check torch==2.13.0 diffusers==0.42.1 transformers==5.24.0 numpy
OMP_NUM_THREADS=1 "$work/venv/bin/python" -W ignore - <<'PY'
from importlib.metadata import version

import torch
from diffusers import FlowMatchEulerDiscreteScheduler, FluxPipeline, FluxTransformer2DModel, PyramidAttentionBroadcastConfig

STEPS, SCALE, SIZE = 20, 4.0, 64


def documented(time):
    """The settings of the documentation's example."""
    config = {"spatial_attention_block_skip_range": 2, "spatial_attention_timestep_skip_range": (100, 800)}
    return PyramidAttentionBroadcastConfig(**config, current_timestep_callback=time)


def pipeline():
    """Flux with a small network of random weights, without the parts that make embeddings and pictures."""
    torch.manual_seed(0)
    sizes = {"attention_head_dim": 16, "num_attention_heads": 2, "joint_attention_dim": 32, "pooled_projection_dim": 32, "axes_dims_rope": (4, 4, 8)}
    net = FluxTransformer2DModel(patch_size=1, in_channels=4, num_layers=2, num_single_layers=2, **sizes).eval()
    parts = dict.fromkeys(("vae", "text_encoder", "tokenizer", "text_encoder_2", "tokenizer_2"))
    pipe = FluxPipeline(scheduler=FlowMatchEulerDiscreteScheduler(), transformer=net, **parts)
    pipe.set_progress_bar_config(disable=True)
    return pipe


def embedding(seed):
    return torch.randn(1, 8, 32, generator=torch.Generator().manual_seed(seed)) * 3


def paint(cached, negative):
    """Latents with the negative prompt, by the pipeline."""
    pipe, pooled = pipeline(), torch.zeros(1, 32)
    if cached:
        pipe.transformer.enable_cache(documented(lambda: pipe.current_timestep))
    prompt = {"prompt_embeds": embedding(0), "pooled_prompt_embeds": pooled}
    against = {"negative_prompt_embeds": embedding(negative), "negative_pooled_prompt_embeds": pooled}
    sizes = {"height": SIZE, "width": SIZE, "num_inference_steps": STEPS, "output_type": "latent", "generator": torch.Generator().manual_seed(0)}
    return pipe(**prompt, **against, true_cfg_scale=SCALE, **sizes).images


def together(negative):
    """The same by hand, with both prompts in one batch, which the cache is made for."""
    pipe, now = pipeline(), [0.0]
    net, scheduler, pooled = pipe.transformer, pipe.scheduler, torch.zeros(2, 32)
    net.enable_cache(documented(lambda: now[0]))
    latents, ids = pipe.prepare_latents(1, 1, SIZE, SIZE, torch.float32, torch.device("cpu"), torch.Generator().manual_seed(0))
    scheduler.set_timesteps(sigmas=torch.linspace(1, 1 / STEPS, STEPS).tolist())
    prompts = torch.cat([embedding(0), embedding(negative)])
    for time in scheduler.timesteps:
        now[0] = time
        with torch.no_grad():
            given = {"hidden_states": latents.repeat(2, 1, 1), "encoder_hidden_states": prompts, "pooled_projections": pooled}
            found = net(**given, timestep=(time / 1000).repeat(2), txt_ids=torch.zeros(8, 3), img_ids=ids, return_dict=False)[0]
        wanted, against = found.chunk(2)
        latents = scheduler.step(against + SCALE * (wanted - against), time, latents, return_dict=False)[0]
    return latents


def apart(one, other):
    """How far pictures are apart, as a share of their own size."""
    return ((one - other).norm() / one.norm()).item()


print(*(f"{name} {version(name)}" for name in ("diffusers", "torch")))
plain, cached, batched = ([paint_one(negative) for negative in (1, 2)] for paint_one in (lambda n: paint(False, n), lambda n: paint(True, n), together))
print(f"two negative prompts move the picture by {apart(*plain):.4f} of its size without a cache, by {apart(*cached):.4f} with it,")
print(f"and by {apart(*batched):.4f} with it and both prompts in one batch")
print(f"the picture is {apart(plain[0], cached[0]):.4f} from the one without a cache, and {apart(plain[0], batched[0]):.4f} with both prompts in one batch")
assert apart(*cached) < 0.5 * apart(*plain) and abs(apart(*batched) / apart(*plain) - 1) < 0.1
assert apart(plain[0], cached[0]) > 10 * apart(plain[0], batched[0])
PY
