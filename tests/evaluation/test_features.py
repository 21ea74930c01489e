"""Feature networks: what they see, in any batch; their weights are read as weights and nothing else."""

from __future__ import annotations

import pickle
from pathlib import Path

import pytest
import torch

from diffusion_art.errors import UserError
from diffusion_art.evaluation import features
from diffusion_art.evaluation.distances import kernel_distance
from diffusion_art.evaluation.features import FEATURES, load_features, read_weights
from diffusion_art.evaluation.reference import painted
from diffusion_art.evaluation.train_judge import degrade


@pytest.fixture(params=["judge", "efficientnet_lite0"])
def network(request):
    return load_features(request.param)


def test_a_picture_has_the_same_features_in_any_batch(network):
    images = painted(6, image_size_px=32).images
    images[5, 0, 3, 3] = torch.nan
    seen = network(images)
    assert seen.shape == (6, network.dim)
    assert seen.dtype == torch.float64
    assert seen.isfinite().all()
    torch.testing.assert_close(network(images, batch_size=1), seen, atol=1e-4, rtol=1e-3)
    assert (seen.std(0) > 0).double().mean() > 0.9


def test_batches_side_by_side_give_the_same_bits(network):
    images = painted(20, image_size_px=32).images
    before = torch.get_num_threads()
    seen = []
    for threads in (1, 2):
        torch.set_num_threads(threads)
        try:
            seen.append(network(images, batch_size=8))
            assert torch.get_num_threads() == threads
        finally:
            torch.set_num_threads(before)
    assert torch.equal(*seen)


def test_distance_tells_noise_from_paintings_and_lite0_sees_them_spoilt(network):
    """The judge was trained to look through blur, speckle and fading."""
    real, other = painted(96, image_size_px=32), painted(96, image_size_px=32, seed=1)
    spoilt = degrade(((other.images + 1) * 127.5).round().to(torch.uint8), torch.Generator().manual_seed(0))
    noise = torch.randn(96, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    seen = [network(images) for images in (real.images, other.images, spoilt, noise)]
    alike, worse, far = (kernel_distance(seen[0], fake, subset_size=96, subsets=1)[0] for fake in seen[1:])
    assert far > 10 * abs(alike)
    if network.name != "judge":
        assert alike + 0.05 < worse < far / 3


# Of a picture of three ramps, by the network of the PyPI package efficientnet-lite-pytorch with the same weights,
# less the bias of its last batch norm and over its scale
LITE0_RAMPS = [-0.174832, 0.143472, -0.307251, -0.075859]


def test_lite0_sees_what_the_network_the_weights_were_packed_for_sees():
    net = load_features("efficientnet_lite0")
    ramp = torch.linspace(-1, 1, 96)
    picture = torch.stack([ramp.expand(96, 96), ramp[:, None].expand(96, 96), ramp * ramp[:, None]])[None]
    torch.testing.assert_close(
        net(picture)[0, :4], torch.tensor(LITE0_RAMPS, dtype=torch.float64), atol=1e-4, rtol=1e-4
    )


def test_an_unknown_network_and_missing_weights_are_named(monkeypatch, tmp_path: Path):
    with pytest.raises(UserError, match="features=vgg is not one of efficientnet_lite0, inception, judge"):
        load_features("vgg")
    monkeypatch.setattr(features, "find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"torchmetrics\[image\]"):
        load_features("inception")
    monkeypatch.setattr(features, "find_spec", lambda name: True)
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    with pytest.raises(UserError, match="fetch it once from https://"):
        load_features("inception")
    assert list(FEATURES) == ["efficientnet_lite0", "inception", "judge"]


class Bomb:
    def __reduce__(self):
        return Path.touch, (Path("exploded"),)


def test_weights_that_hold_code_or_are_cut_short_are_refused(tmp_path: Path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    torch.save({"weight": torch.ones(3), "extra": Bomb()}, "bomb.pth")
    Path("plain.pth").write_bytes(pickle.dumps(Bomb(), protocol=2))
    torch.save({"weight": torch.ones(300)}, "whole.pth")
    Path("cut.pth").write_bytes(Path("whole.pth").read_bytes()[:400])
    for name in ("bomb.pth", "plain.pth", "cut.pth", "nothing.pth"):
        with pytest.raises(UserError, match=f"{name} cannot be read as weights"):
            read_weights(Path(name))
    assert not Path("exploded").exists()
    assert read_weights(Path("whole.pth"))["weight"].sum() == 300
