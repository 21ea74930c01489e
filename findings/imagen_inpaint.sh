#!/usr/bin/env bash
# imagen-pytorch 2.1.0, torch 2.14.1: `sample(inpaint_images=..., inpaint_masks=...)` paints what is missing by the paper RePaint: each step goes down in noise, the
# picture is noised up again, and that five times, `inpaint_resample_times`, so that the new part comes to fit the old one. One would guess that more times fit
# better. To noise up from sigma to a greater sigma', variances are to be subtracted; the package subtracts the standard deviations, which gives nearly no noise, the
# less the shorter the steps. So a picture that says it has the noise of time t has that of a later step, and each of the five times takes more out of it: the new
# part comes out flat and too smooth beside the old one. `inpaint_resample_times=1` is the only value that is not touched by it.
# Seen: spread of what is painted anew in 250 steps, of pictures with 0.5, by a network that knows them exactly: 1, 2, 5 times 0.47, 0.39, 0.35; with variances
# subtracted 0.47, 0.46, 0.45. Noise that is added in a step at t = 0.5: 0.01 of 0.11.
set -euo pipefail
work=$(mktemp -d) && trap 'rm -rf "$work"' EXIT
python3 -m venv --without-pip "$work/venv"
python3 -m pip --python "$work/venv/bin/python" install --quiet --no-compile --disable-pip-version-check torch==2.14.1 torchvision==0.29.1 imagen-pytorch==2.1.0 numpy
# To be imported, the package reads this config of the hub for its width alone.
mkdir -p "$work/google/t5-v1_1-base" && echo '{"model_type": "t5", "d_model": 768}' >"$work/google/t5-v1_1-base/config.json"
cd "$work" && HF_HUB_OFFLINE=1 OMP_NUM_THREADS=1 venv/bin/python -W ignore - <<'PY'
from importlib.metadata import version

import torch
from imagen_pytorch import Imagen, Unet

SPREAD, STEPS, BATCH, SIZE = 0.5, 250, 16, 16  # each pixel is Gaussian, with this spread


def model():
    """An Imagen whose network knows such pictures exactly."""
    net = Unet(dim=8, cond_dim=8, dim_mults=(1,), num_resnet_blocks=1, layer_attns=False, layer_cross_attns=False, cond_on_text=False)
    settings = {"timesteps": STEPS, "condition_on_text": False, "dynamic_thresholding": False}
    imagen = Imagen(net, image_sizes=SIZE, **settings)

    def exact(x, log_snr, **_):
        squared = torch.sigmoid(log_snr)[:, None, None, None]
        alpha, sigma = squared.sqrt(), (1 - squared).sqrt()
        picture = alpha * SPREAD**2 / (squared * SPREAD**2 + sigma**2) * x
        return (x - alpha * picture) / sigma

    imagen.unets[0].forward_with_cond_scale = exact
    return imagen


def levels(schedule, time):
    squared = torch.sigmoid(schedule.log_snr(time))[:, None, None, None]
    return squared.sqrt(), (1 - squared).sqrt()


def by_variance(schedule):
    """Noise up as diffusion itself does: the variance that is missing is added."""

    def noised(x, from_time, to_time):
        (alpha, sigma), (alpha_to, sigma_to) = levels(schedule, from_time), levels(schedule, to_time)
        ratio = alpha_to / alpha
        return ratio * x + (sigma_to**2 - (ratio * sigma) ** 2).clamp(min=0).sqrt() * torch.randn_like(x)

    return noised


def spread(times, right):
    """Of a picture that is to be painted anew everywhere."""
    torch.manual_seed(0)
    imagen = model()
    schedule = imagen.noise_schedulers[0]
    if right:
        schedule.q_sample_from_to = by_variance(schedule)
    given, mask = torch.full((BATCH, 3, SIZE, SIZE), 0.5), torch.zeros(BATCH, SIZE, SIZE, dtype=torch.bool)
    painted = imagen.sample(batch_size=BATCH, inpaint_images=given, inpaint_masks=mask, inpaint_resample_times=times, use_tqdm=False)
    return (2 * painted - 1).std().item()


print(*(f"{name} {version(name)}" for name in ("imagen-pytorch", "torch")))
schedule, start, end = model().noise_schedulers[0], torch.tensor([0.5 - 1 / STEPS]), torch.tensor([0.5])
added, missing = (step(torch.zeros(1, 3, 256, 256), start, end).std().item() for step in (schedule.q_sample_from_to, by_variance(schedule)))
print(f"noise that is added at t = 0.5 in {STEPS} steps: {added:.2f} of {missing:.2f}")
assert added < 0.2 * missing, (added, missing)
for times in (1, 2, 5):
    found, right = spread(times, right=False), spread(times, right=True)
    print(f"{times} times: spread {found:.2f}; with variances {right:.2f}; of pictures with {SPREAD}")
    assert 0.43 < right < 0.52, right
    assert found == right if times == 1 else found < 0.9 * right, (found, right)
PY
