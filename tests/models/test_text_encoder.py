from __future__ import annotations

import copy

import huggingface_hub
import pytest
import torch

from diffusion_art.config import build
from diffusion_art.errors import UserError
from diffusion_art.models.caption_cache import CaptionCache
from diffusion_art.models.open_clip_weights import weights_reachable
from diffusion_art.models.text_encoder import OpenClipPretrained, OpenClipScratch
from diffusion_art.models.transformers_text import Transformers
from tests.fakes import tiny_clip, tiny_transformer
from tests.waiting import NoWaiting, a_gpu, on_fake_cuda

CAPTIONS = ["a red house", "", "a much longer caption of blue and yellow planes by nobody in particular"]


def scratch(**changes) -> OpenClipScratch:
    torch.manual_seed(0)
    settings = {"width": 16, "layers": 1, "heads": 2, "vocab_size": 600, "context_length": 32} | changes
    return OpenClipScratch(**settings)


@pytest.fixture(scope="module")
def clip_folder(tmp_path_factory):
    return tiny_clip(tmp_path_factory.mktemp("clip"))


@pytest.fixture(scope="module")
def bert_folder(tmp_path_factory):
    return tiny_transformer(tmp_path_factory.mktemp("bert"))


@pytest.fixture(params=["scratch", "pretrained", "transformers"])
def encoder(request, clip_folder, bert_folder):
    if request.param == "scratch":
        return scratch().eval()
    if request.param == "transformers":
        return Transformers(path=str(bert_folder), context_length=32)
    return OpenClipPretrained(model=f"local-dir:{clip_folder}")


# ---------------------------------------------------------------------- laws of all


def test_shapes_are_as_announced(encoder):
    cond = encoder.encode(CAPTIONS)
    length = cond.tokens.shape[1]
    assert cond.tokens.shape == (3, length, encoder.dim)
    assert cond.pooled.shape == (3, encoder.pooled_dim)
    assert cond.mask.shape == (3, length)
    assert length % 8 == 0 or length == encoder.context_length
    assert cond.mask.sum(1)[1] == 2  # no caption is start and end
    assert torch.isfinite(cond.tokens).all()


def test_a_caption_means_the_same_alone_and_among_others(encoder):
    together = encoder.encode(CAPTIONS)
    for row, caption in enumerate(CAPTIONS):
        alone = encoder.encode([caption])
        real = alone.mask[0]
        torch.testing.assert_close(together.tokens[row, : len(real)][real], alone.tokens[0][real])
        torch.testing.assert_close(together.pooled[row], alone.pooled[0])


def test_captions_differ_in_both_parts(encoder):
    cond = encoder.encode(["red", "blue"])
    assert not torch.allclose(cond.pooled[0], cond.pooled[1], atol=1e-3)
    assert not torch.allclose(cond.tokens[0], cond.tokens[1], atol=1e-3)


def test_truncation_is_counted(encoder):
    encoder.encode(["x " * 100, "x " * 100, "short"])
    assert encoder.truncated == 1


def test_an_encoder_can_be_described_in_plain_data(encoder):
    import json

    assert json.loads(json.dumps(encoder.describe())) == encoder.describe()


# ---------------------------------------------------------------------- trained along


def test_the_scratch_tower_learns_which_word_it_was_from_the_pooled_vector_within_steps():
    torch.manual_seed(0)
    encoder = scratch(width=32, context_length=64)
    words = ["red", "blue", "green", "brown", "pink", "yellow", "violet", "orange"]
    captions = [f"composition in {a} and {b}, few planes / 1921" for a in words for b in words if a != b]
    wanted = torch.tensor([[float(w in caption.split("/")[0]) for w in words] for caption in captions])
    head = torch.nn.Linear(32, len(words))
    optimizer = torch.optim.AdamW([*encoder.parameters(), *head.parameters()], lr=1e-3)
    for _ in range(60):
        loss = torch.nn.functional.binary_cross_entropy_with_logits(head(encoder.encode(captions).pooled), wanted)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    right = ((head(encoder.encode(captions).pooled) > 0) == wanted.bool()).all(1).float().mean()
    assert right > 0.9  # both colours of a caption


def test_every_weight_of_the_scratch_tower_hears_of_the_loss():
    encoder = scratch()
    cond = encoder.encode(CAPTIONS)
    (cond.tokens.square().sum() + cond.pooled.square().sum()).backward()
    deaf = [name for name, p in encoder.named_parameters() if p.grad is None or not p.grad.any()]
    assert deaf == []


# ---------------------------------------------------------------------- frozen


def test_the_frozen_tower_has_no_weights_to_train_or_save(clip_folder):
    encoder = OpenClipPretrained(model=f"local-dir:{clip_folder}")
    assert list(encoder.parameters()) == []
    assert encoder.state_dict() == {}
    assert not any(weight.requires_grad for weight in encoder.tower.parameters())


def test_it_agrees_with_open_clip_itself(clip_folder):
    import open_clip

    name = f"local-dir:{clip_folder}"
    clip = open_clip.create_model(name).eval()
    with torch.no_grad():
        theirs = clip.encode_text(open_clip.get_tokenizer(name)(CAPTIONS))
    torch.testing.assert_close(OpenClipPretrained(model=name).encode(CAPTIONS).pooled, theirs)


def test_values_are_the_same_bits_cached_or_not_in_any_batch_and_under_autocast(clip_folder):
    name = f"local-dir:{clip_folder}"
    encoder = OpenClipPretrained(model=name)
    first = encoder.encode(["red"])
    assert torch.equal(encoder.encode(["red"]).tokens, first.tokens)
    for others in (7, 8, 19):
        fresh = OpenClipPretrained(model=name, cache_captions=0)
        with torch.autocast("cpu", torch.bfloat16):
            cond = fresh.encode([*(f"caption {i}" for i in range(others)), "red"])
        assert len(fresh.cache) == 0
        assert torch.equal(cond.tokens[-1, :3], first.tokens[0, :3])
        assert torch.equal(cond.pooled[-1], first.pooled[0])


def test_a_known_caption_is_not_read_again(clip_folder):
    encoder = OpenClipPretrained(model=f"local-dir:{clip_folder}")
    before = encoder.encode(["red", "blue"])
    with torch.no_grad():
        encoder.tower.ln_final.weight.zero_()
    after = encoder.encode(["blue", "red", "red"])
    assert torch.equal(after.pooled[1:], before.pooled[:1].expand(2, -1))


def test_it_moves_with_its_module_and_copies(clip_folder):
    encoder = OpenClipPretrained(model=f"local-dir:{clip_folder}")
    wrapped = torch.nn.ModuleList([encoder]).double()
    assert encoder.tower.positional_embedding.dtype == torch.float64
    wrapped.float()
    assert copy.deepcopy(encoder).sha256 == encoder.sha256


def test_its_hash_tells_weights_apart(clip_folder, tmp_path):
    other = tiny_clip(tmp_path / "other", seed=1)
    a, b = (OpenClipPretrained(model=f"local-dir:{folder}").describe()["sha256"] for folder in (clip_folder, other))
    assert a != b


def test_weights_may_be_named_as_a_folder_too(clip_folder):
    assert OpenClipPretrained(model="ViT-B-32", pretrained=f"local-dir:{clip_folder}").dim == 32


@pytest.fixture
def offline(monkeypatch, tmp_path):
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "empty"))


def test_offline_the_three_ways_out_are_named(offline):
    with pytest.raises(UserError, match=r"ViT-B-32 / laion2b_s34b_b79k cannot be reached.*hub.*FILE.*scratch"):
        OpenClipPretrained()


def test_reachable_means_on_disk_or_on_the_hub(offline, clip_folder, tmp_path):
    assert weights_reachable(f"local-dir:{clip_folder}", None)
    assert weights_reachable("ViT-B-32", str(clip_folder / "open_clip_model.safetensors"))
    assert not weights_reachable(f"local-dir:{tmp_path}", None)
    assert not weights_reachable("ViT-B-32", "laion2b_s34b_b79k")
    assert not weights_reachable("ViT-B-32", "no such tag")


@pytest.mark.parametrize(
    ("asked", "says"),
    [
        ({"model": "ViT-B-23"}, "no model named 'ViT-B-23'; did you mean ViT-B-32"),
        ({"pretrained": "nope"}, "neither a file nor a tag of open_clip ViT-B-32. Its tags are: openai"),
        ({"model": "ViT-B-16-SigLIP", "pretrained": "webli"}, "another tokenizer"),
        ({"model": "local-dir:/nowhere"}, "cannot be reached"),
    ],
)
def test_what_cannot_be_is_refused_by_name(asked, says):
    with pytest.raises(UserError, match=says):
        OpenClipPretrained(**asked)


def test_a_file_of_something_else_is_refused(tmp_path):
    file = tmp_path / "weights.pt"
    file.write_bytes(b"not weights")
    with pytest.raises(UserError, match="are no weights"):
        OpenClipPretrained(model="ViT-S-32-alt", pretrained=str(file))


# ---------------------------------------------------------------------- the cache


def _answers(*lengths: int, first: float = 1.0) -> tuple[list[int], torch.Tensor, torch.Tensor]:
    tokens = first + torch.arange(len(lengths) * 4.0 * 2).view(len(lengths), 4, 2)
    return list(lengths), tokens, tokens[:, 0, :1]


def test_the_cache_keeps_the_first_captions_and_no_padding():
    cache = CaptionCache(most=3)
    cache.keep(["a", "b"], *_answers(2, 4))
    cache.keep(["c", "d"], *_answers(1, 3, first=100.0))
    assert [cache.place(caption) for caption in "abcd"] == [(0, 0), (2, 1), (6, 2), None]
    assert len(cache) == 3
    assert cache.encoded is not None
    starts, rows = torch.tensor([[6, 0, 6], [2, 0, 2]])
    mask = torch.tensor([[True, False], [True, True], [True, False]])
    tokens, pooled = cache.encoded.gather(starts, rows, mask)
    assert tokens.tolist() == [[[100, 101], [0, 0]], [[1, 2], [3, 4]], [[100, 101], [0, 0]]]
    assert pooled.tolist() == [[100], [1], [100]]
    cache.clear()
    assert (len(cache), cache.place("a")) == (0, None)


def test_an_epoch_longer_than_the_cache_still_finds_a_part_of_it(clip_folder):
    encoder = OpenClipPretrained(model=f"local-dir:{clip_folder}", cache_captions=6)
    captions = [f"caption {i}" for i in range(20)]
    read = []
    encoder.tower.register_forward_hook(lambda *_: read.append(None))
    for _ in range(2):
        for start in range(0, 20, 2):
            encoder.encode(captions[start : start + 2])
    assert len(read) == 10 + 7


def test_a_batch_of_old_and_new_captions_is_each_in_its_place(clip_folder):
    encoder = OpenClipPretrained(model=f"local-dir:{clip_folder}", cache_captions=4)
    with torch.inference_mode():  # as in validation
        encoder.encode(["red", "a blue house"])
    new = ["green", "a much longer caption of one", "", "two"]
    asked = [new[0], "red", new[1], "a blue house", new[0], *new[2:]]
    cond = encoder.encode(asked)
    assert len(encoder.cache) == 4
    fresh = OpenClipPretrained(model=f"local-dir:{clip_folder}", cache_captions=0)
    for row, caption in enumerate(asked):
        alone = fresh.encode([caption])
        length = alone.tokens.shape[1]
        assert torch.equal(cond.tokens[row, :length], alone.tokens[0])
        assert not cond.tokens[row, length:].any()
        assert torch.equal(cond.mask[row, :length], alone.mask[0])
        assert torch.equal(cond.pooled[row], alone.pooled[0])


def test_a_cache_of_megabytes_as_old_checkpoints_have_it_is_counted_in_captions(clip_folder):
    old = {"_target_": "diffusion_art.models.text_encoder.OpenClipPretrained", "precision": "fp32", "cache_mb": 512}
    encoder = build({**old, "model": f"local-dir:{clip_folder}"})
    assert encoder.cache.most == 8947
    with pytest.raises(UserError, match="cache_captions=-1 is not a number of captions"):
        OpenClipPretrained(model=f"local-dir:{clip_folder}", cache_captions=-1)


# ---------------------------------------------------------------------- on a CUDA device, by its fake


@pytest.fixture
def on_cuda(clip_folder):
    """Towers on a pretended CUDA device that computes in bf16: one that chooses its precision, and one that is told."""
    encoders = [OpenClipPretrained(model=f"local-dir:{clip_folder}", precision=name) for name in ("auto", "fp32")]
    with a_gpu():
        for encoder in encoders:
            on_fake_cuda(encoder.tower)
        yield encoders


def test_a_cuda_device_reads_new_captions_at_once_and_keeps_the_answers(on_cuda):
    encoder, _ = on_cuda
    captions = [f"caption {i} of {'a' * (i % 3)}" for i in range(30)]
    asked = []
    encoder.tower.register_forward_pre_hook(lambda _, args: asked.append((tuple(args[0].shape), args[0].device.type)))
    with NoWaiting():
        first = encoder.encode(captions)
        again = encoder.encode([*captions[:20], *(f"new {i}" for i in range(10))])
        encoder.encode(captions)
    assert asked == [((30, 8), "cuda"), ((10, 8), "cuda")]
    for cond in (first, again):
        assert {part.device.type for part in (cond.tokens, cond.mask, cond.pooled)} == {"cuda"}
        assert cond.tokens.dtype == cond.pooled.dtype == torch.float32
        assert cond.tokens.shape == (30, 8, 32)
    assert encoder.cache.encoded.tokens.dtype == torch.bfloat16
    assert encoder.cache.encoded.tokens.device.type == "cuda"
    assert encoder.tower.positional_embedding.dtype == torch.float32


def test_a_cuda_device_reads_in_bf16_unless_it_is_told_otherwise(on_cuda):
    for encoder, dtype in zip(on_cuda, (torch.bfloat16, torch.float32)):
        assert {part.dtype for part in encoder._ask([[1, 2]], 8)} == {dtype}


def test_reading_at_once_in_bf16_says_the_same_within_its_rounding(clip_folder):
    """The device's way with the same weights, on a CPU: one batch, trimmed to the longest, in bf16."""
    encoder = OpenClipPretrained(model=f"local-dir:{clip_folder}")
    captions = ["red", "", *(f"caption {i} of a blue house" for i in range(9))]
    exact = encoder.encode(captions)
    encoder.tower.bfloat16()
    tokens, pooled = encoder._ask([encoder.tokenizer.ids(caption) for caption in captions], exact.tokens.shape[1])
    far = (tokens.float() - exact.tokens)[exact.mask].norm() / exact.tokens[exact.mask].norm()
    assert 0 < float(far) < 0.02
    assert float((pooled.float() - exact.pooled).norm() / exact.pooled.norm()) < 0.02
