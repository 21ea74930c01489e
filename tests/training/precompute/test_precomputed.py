"""Latents, text states and image features beside the shards: made once, sent by the stream, and what asking on the way
would give.
"""

from __future__ import annotations

import json
import re
import shlex
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from diffusion_art.checkpoints import find_checkpoint, read_checkpoint
from diffusion_art.config import build
from diffusion_art.data.datamodule import StreamDataModule
from diffusion_art.data.precomputed import ToldFirst, Wanted
from diffusion_art.diffusion.objective import NoWeighting, Objective, Stratified
from diffusion_art.errors import UserError
from diffusion_art.models.image_tower import OpenClipImage
from diffusion_art.models.vae import Vae
from diffusion_art.shards.build.build import build_shards
from diffusion_art.shards.build.engine import LocalEngine
from diffusion_art.shards.pixels import BadPicture, payload_of
from diffusion_art.shards.places import Component
from diffusion_art.shards.reader import ShardSet
from diffusion_art.shards.side_files import FEATURES, LATENTS, TEXT, BadRecord, digest_of, read_record, record_of
from diffusion_art.sources.painter import Painter
from diffusion_art.tensors import Batch, Conditioning
from diffusion_art.training.precompute.precomputed import wanted
from diffusion_art.training.precompute.precomputing import Encoders, chosen, precompute
from diffusion_art.training.step import TrainingStep
from diffusion_art.training.terms.alignment import Alignment
from diffusion_art.training.terms.perceptual import Perceptual
from diffusion_art.training.terms.term import Term
from tests.fakes import tiny_clip, toy_model, toy_vae, vae_config
from tests.fakes_buckets import bucketed_shards

QUIET: dict[str, Any] = {"progress": False, "workers": 1}
BF16 = 2**-8  # rounding of bfloat16, relative


@pytest.fixture(scope="module")
def tower(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """The config of a small frozen text tower."""
    folder = tiny_clip(tmp_path_factory.mktemp("clip"))
    kind = "diffusion_art.models.text_encoder.OpenClipPretrained"
    return {"_target_": kind, "model": f"local-dir:{folder}", "pretrained": None}


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("data") / "painter"
    build_shards(
        Painter(count=40, image_size_px=16), out, image_size_px=16, val_fraction=0.3, progress=False, workers=1
    )
    return out


@pytest.fixture(scope="module")
def vae(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return toy_vae(tmp_path_factory.mktemp("vae"))


SIGHT = {"_target_": "diffusion_art.models.image_tower.Lite0", "image_size_px": 32, "stride": 16}  # 112 x 2 x 2


def made(shards: Path, node: dict[str, Any], *what: str) -> str:
    """The codec on the wire, once all of it lies beside the shards."""
    encoders = Encoders(node, what, "cpu", SIGHT)
    list(precompute(Component(shards), encoders, LocalEngine(1), progress=False))
    names = {kind: f"{kind}:{digest}" for kind, (digest, _) in encoders.digests.items()}
    codec = names.get(LATENTS, "jpeg")
    return "+".join([codec, *(names[kind] for kind in (TEXT, FEATURES) if kind in names)])


def batches(shards: Path, wanted: Wanted | None = None, *, count: int = 3, **settings: Any) -> list[Batch]:
    """The first batches of a run, as a step gets them."""
    data = StreamDataModule(
        **{"shards": shards, "url": "shards", "image_size_px": 16, "global_batch_size": 8, "num_workers": 0} | settings
    )
    data.precomputed = wanted
    try:
        data.prepare_data()
        data.setup()
        found = [batch for batch, _ in zip(data.train_dataloader(), range(count))]
        return [data.on_after_batch_transfer(batch, 0) for batch in found]
    finally:
        data.teardown()


def test_batches_are_those_of_encoding_on_the_way(shards: Path, vae: Path, tower: dict[str, Any]) -> None:
    node = {"codec": vae_config(vae), "text_encoder": tower}
    codec, encoder = Vae(path=str(vae)), build(tower)
    wanted = Wanted(made(shards, node, LATENTS, TEXT), (4, 8, 8), "precompute")
    for plain, early in zip(batches(shards), batches(shards, wanted, payload="latents", text_states=True), strict=True):
        assert (early.keys, early.captions, early.positions) == (plain.keys, plain.captions, plain.positions)
        assert (early.encoded, early.cursor) == (True, plain.cursor)
        torch.testing.assert_close(early.images, codec.encode(plain.images), rtol=BF16, atol=1e-6)
        on_the_way = encoder.encode(plain.captions)
        assert early.cond is not None
        assert torch.equal(early.cond.mask, on_the_way.mask)
        states = on_the_way.tokens.masked_fill(~on_the_way.mask[..., None], 0)
        torch.testing.assert_close(early.cond.tokens, states, rtol=BF16, atol=1e-6)
        torch.testing.assert_close(early.cond.pooled, on_the_way.pooled, rtol=BF16, atol=1e-6)


def test_a_server_and_loader_workers_send_the_same(shards: Path, vae: Path, tower: dict[str, Any]) -> None:
    node = {"codec": vae_config(vae), "text_encoder": tower}
    for what, latents, settings in (
        ((LATENTS, TEXT), (4, 8, 8), {"payload": "latents", "text_states": True}),
        ((TEXT,), None, {"text_states": True}),
        ((TEXT, FEATURES), None, {"text_states": True, "image_features": True}),
    ):
        wanted = Wanted(made(shards, node, *what), latents, "precompute")
        near = batches(shards, wanted, **settings)
        far = batches(shards, wanted, url="auto", num_workers=1, **settings)
        for one, other in zip(near, far, strict=True):
            assert torch.equal(one.images, other.images)
            assert one.cond is not None
            assert other.cond is not None
            assert torch.equal(one.cond.tokens, other.cond.tokens)
            assert (one.features is None, other.features is None) == (FEATURES not in what, FEATURES not in what)
            if one.features is not None:
                assert torch.equal(one.features, other.features)
            assert one.captions == other.captions


def test_features_are_those_of_asking_on_the_way(shards: Path, vae: Path, tower: dict[str, Any]) -> None:
    node, sight = {"codec": vae_config(vae), "text_encoder": tower}, build(SIGHT)
    latents = {"payload": "latents", "text_states": True}
    for what, shape, settings in (((FEATURES,), None, {}), ((LATENTS, TEXT, FEATURES), (4, 8, 8), latents)):
        wanted = Wanted(made(shards, node, *what), shape, "precompute")
        early = batches(shards, wanted, image_features=True, **settings)
        for with_them, plain in zip(early, batches(shards), strict=True):
            assert with_them.keys == plain.keys
            assert with_them.features is not None
            assert with_them.features.shape == (8, 112, 2, 2)
            torch.testing.assert_close(with_them.features, sight(plain.images), rtol=BF16, atol=1e-5)
            if shape is None:
                assert torch.equal(with_them.images, plain.images)


def test_pictures_in_buckets_have_latents_and_features_of_their_shape(tmp_path: Path, vae: Path) -> None:
    bucketed_shards(tmp_path / "shards")
    codec, sight = Vae(path=str(vae)), build(SIGHT)
    wanted = Wanted(made(tmp_path / "shards", {"codec": vae_config(vae)}, LATENTS, FEATURES), (4, 8, 8), "precompute")
    asked = {"payload": "latents", "image_features": True}
    shapes = set()
    for url in ("shards", "auto"):
        early = batches(tmp_path / "shards", wanted, url=url, count=12, global_batch_size=4, **asked)
        late = batches(tmp_path / "shards", count=12, global_batch_size=4)
        for with_them, plain in zip(early, late, strict=True):
            assert (with_them.keys, with_them.captions, with_them.cursor) == (plain.keys, plain.captions, plain.cursor)
            torch.testing.assert_close(with_them.images, codec.encode(plain.images), rtol=BF16, atol=1e-5)
            assert with_them.features is not None
            torch.testing.assert_close(with_them.features, sight(plain.images), rtol=BF16, atol=1e-5)
            shapes.add(tuple(with_them.images.shape[1:]))
    assert {(4, 4, 12), (4, 8, 6), (4, 6, 10)} <= shapes


def test_records_that_were_cut_by_a_copy_are_made_again(tmp_path: Path, vae: Path) -> None:
    bucketed_shards(tmp_path / "shards")
    node = {"codec": vae_config(vae)}
    name = made(tmp_path / "shards", node, LATENTS)
    records = next((tmp_path / "shards").glob("precomputed/*/records.bin"))
    whole = records.read_bytes()
    records.write_bytes(whole[:-10])
    assert name not in ShardSet.open(tmp_path / "shards").codecs
    made(tmp_path / "shards", node, LATENTS)
    assert records.read_bytes() == whole
    assert name in ShardSet.open(tmp_path / "shards").codecs


def test_of_several_folders_the_one_without_records_is_named(tmp_path: Path, vae: Path) -> None:
    for first, folder in enumerate(("one", "two")):
        bucketed_shards(tmp_path / folder, 20, first=100 * first)
    asked = Wanted(made(tmp_path / "one", {"codec": vae_config(vae)}, LATENTS), (4, 8, 8), "precompute")
    module = StreamDataModule(
        shards=[str(tmp_path / "one"), str(tmp_path / "two")],
        url="shards",
        image_size_px=16,
        global_batch_size=4,
        num_workers=0,
        payload="latents",
    )
    module.precomputed = asked
    with pytest.raises(UserError, match=r"^two-pictures has nothing of any encoder beside it"):
        module.prepare_data()


def test_pictures_that_the_codec_cannot_encode_whole_are_named(tmp_path: Path) -> None:
    bucketed_shards(tmp_path / "shards")
    coarse = toy_vae(tmp_path / "vae", levels=4)
    with pytest.raises(
        UserError, match=r"pictures of \d+x\d+ px, and latents of Vae .* multiples of 8 px.*bucket_step_px=N"
    ):
        made(tmp_path / "shards", {"codec": vae_config(coarse)}, LATENTS)
    build_shards(Painter(count=9, image_size_px=16), tmp_path / "squares", image_size_px=12, **QUIET)
    with pytest.raises(UserError, match="image_size_px=N"):
        made(tmp_path / "squares", {"codec": vae_config(coarse)}, LATENTS)


def test_latents_of_another_shape_are_pictures_that_cannot_be_read() -> None:
    data = record_of(1, (4, 8, 6), bytes(2 * 4 * 8 * 6))
    payload_of("latents:0").unpack(data, np.empty((4, 8, 12), np.uint8))
    with pytest.raises(BadPicture, match=r"latents 4 x 8 x 6, where 384 of 4 x 6 x 8 are wanted"):
        payload_of("latents:0").unpack(data, np.empty((4, 6, 16), np.uint8))


def aligned() -> Alignment:
    torch.manual_seed(0)
    return Alignment(maps={"middle": 16}, tower=build(SIGHT), total_steps=10, hidden=8)


def test_an_alignment_with_them_asks_its_tower_nothing(shards: Path) -> None:
    early = batches(shards, Wanted(made(shards, {}, FEATURES), None, ""), image_features=True)[0]
    late = batches(shards)[0]
    term = aligned()
    step = TrainingStep(toy_model(), Objective(times=Stratified(), weighting=NoWeighting()), terms=[term])
    losses = {}
    for name, batch in (("late", late), ("early", early)):
        if name == "early":
            term.tower.net = torch.nn.Identity()  # what it would give has another shape
        losses[name] = step(step.drawn(batch, global_batch_size=8), step=0).terms["alignment"][1]
    torch.testing.assert_close(losses["early"], losses["late"], rtol=1e-2, atol=1e-3)


def test_who_cannot_use_features_is_told_so(vae: Path) -> None:
    def ask(*terms: Term, codec: dict[str, Any] | None = None, **data: Any) -> Wanted | None:
        model = toy_model(**({"codec": codec} if codec else {}))
        step = TrainingStep(model, Objective(times=Stratified(), weighting=NoWeighting()), terms=terms)
        curriculum = {"_target_": "diffusion_art.data.curriculum.Curriculum", "stages": data.pop("stages", [])}
        known = {"payload": "jpeg", "image_size_px": 16, "curriculum": curriculum}
        return wanted({"data": known | data}, step, command="precompute")

    found = ask(aligned(), image_features=True)
    assert found is not None
    assert found.codec == f"jpeg+features:{digest_of(build(SIGHT).describe())}"
    with pytest.raises(UserError, match=r"this run has none: set alignment=features, or data\.image_features=false"):
        ask(image_features=True)
    with pytest.raises(UserError, match="one size: set curriculum=none"):
        ask(aligned(), image_features=True, stages=[{"until": 0.5, "shrink": 2}])
    with pytest.raises(UserError, match=r"data\.image_features=true brings .* not mirrored or cropped"):
        ask(aligned(), image_features=True, augmentation={"horizontal_flip": 0.5})
    latents = {"codec": vae_config(vae), "payload": "latents"}
    with pytest.raises(UserError, match=r"set data\.image_features=true, or alignment=none"):
        ask(aligned(), **latents)
    both = ask(aligned(), image_features=True, **latents)
    assert both is not None
    assert re.fullmatch(r"latents:\w+\+features:\w+", both.codec)
    perceptual = Perceptual(tower=build(SIGHT))
    with pytest.raises(UserError, match="the term perceptual of the loss looks at pictures"):
        ask(aligned(), perceptual, image_features=True, **latents)


def test_a_tower_is_known_by_its_weights_and_by_what_it_looks_at(tmp_path: Path) -> None:
    lite0 = [build(SIGHT | changes) for changes in ({}, {"stride": 32}, {"image_size_px": 64}, {"precision": "bf16"})]
    same, stride, size, precision = (digest_of(one.describe()) for one in lite0)
    assert len({same, stride, size}) == 3
    assert precision == same
    lite0[3](torch.zeros(1, 3, 32, 32))  # from now on its weights are bfloat16
    assert digest_of(lite0[3].describe()) == same
    clips = [tiny_clip(tmp_path / name) for name in ("one", "other")]
    one, again = (OpenClipImage(model=f"local-dir:{clips[0]}", pretrained=None).describe() for _ in range(2))
    assert digest_of(one) == digest_of(again) != same


def test_damaged_features_are_pictures_that_cannot_be_read(tmp_path: Path) -> None:
    own = tmp_path / "own"
    build_shards(Painter(count=40, image_size_px=16), own, image_size_px=16, progress=False, workers=1)
    codec = made(own, {}, FEATURES)
    (file,) = own.glob("precomputed/features-*/records.bin")
    content = bytearray(file.read_bytes())
    content[100] ^= 1
    file.write_bytes(content)
    (damaged,) = [
        record
        for split, samples in ShardSet.open(own).splits.items()
        for _, record in _records(own, split, samples, codec)
        if not _is_whole(record)
    ]
    with pytest.raises(BadPicture, match="its image features cannot be read: it is damaged"):
        ToldFirst(codec).rest(damaged)


def test_another_encoder_is_refused_with_the_command(shards: Path, tmp_path: Path, vae: Path) -> None:
    made(shards, {"codec": vae_config(vae)}, LATENTS)
    other = digest_of(Vae(path=str(toy_vae(tmp_path / "other", seed=1))).describe())
    wanted = Wanted(f"latents:{other}", (4, 8, 8), "python -m diffusion_art.precompute data.path=X")
    for url in ("shards", "auto"):
        with pytest.raises(UserError, match=rf"not latents:{other}.*`python -m diffusion_art.precompute data.path=X`"):
            batches(shards, wanted, url=url, payload="latents")


def test_a_data_module_without_a_model_cannot_know_whose_latents(shards: Path) -> None:
    with pytest.raises(UserError, match="latents, text states and features are those of a model"):
        batches(shards, payload="latents")


def test_damaged_records_are_pictures_that_cannot_be_read(shards: Path, vae: Path, tmp_path: Path) -> None:
    build_shards(Painter(count=40, image_size_px=16), tmp_path / "own", image_size_px=16, progress=False, workers=1)
    codec = made(tmp_path / "own", {"codec": vae_config(vae)}, LATENTS)
    (file,) = tmp_path.glob("own/precomputed/*/records.bin")
    content = bytearray(file.read_bytes())
    content[100] ^= 1
    file.write_bytes(content)
    damaged = [
        key
        for split, samples in ShardSet.open(tmp_path / "own").splits.items()
        for key, record in _records(tmp_path / "own", split, samples, codec)
        if not _is_whole(record)
    ]
    assert len(damaged) == 1
    found = batches(tmp_path / "own", Wanted(codec, (4, 8, 8), ""), payload="latents")
    seen = [key for batch in found for key in batch.keys]
    assert f"{damaged[0]:016x}" not in seen
    assert len(seen) == 24


def _records(folder: Path, split: str, samples: int, codec: str) -> list[tuple[int, memoryview]]:
    keys, _, records = ShardSet.open(folder).views(split, np.arange(samples), codec)
    return list(zip(keys.tolist(), records, strict=True))


def _is_whole(record: memoryview) -> bool:
    try:
        read_record(record)
    except BadRecord:
        return False
    return True


def test_an_interrupted_run_goes_on_to_the_same_records(shards: Path, vae: Path, tmp_path: Path) -> None:
    whole, torn = tmp_path / "whole", tmp_path / "torn"
    for folder in (whole, torn):
        build_shards(Painter(count=80, image_size_px=16), folder, image_size_px=16, progress=False, workers=1)
    node = {"codec": vae_config(vae)}
    made(whole, node, LATENTS)
    (file,) = whole.glob("precomputed/*/records.bin")
    about = json.loads((file.parent / "about.json").read_text())
    assert about["records"] == 80
    partial = torn / "precomputed" / file.parent.name / "records.partial"
    partial.parent.mkdir(parents=True)
    partial.write_bytes(file.read_bytes()[:30_000] + b"torn")
    told = {name: about[name] for name in ("format", "version", "kind", "digest", "encoder", "shards")}
    Path(f"{partial}.json").write_text(json.dumps(told, sort_keys=True))
    made(torn, node, LATENTS)
    (again,) = torn.glob("precomputed/*/records.bin")
    assert again.read_bytes()[:30_000] == file.read_bytes()[:30_000]
    ours, theirs = (_payloads(folder) for folder in (torn, whole))
    assert ours.keys() == theirs.keys()
    assert max(float((ours[key] - theirs[key]).abs().max()) for key in ours) < 0.05


def _payloads(shards: Path) -> dict[int, torch.Tensor]:
    (file,) = shards.glob("precomputed/*/records.bin")
    content, start, found = file.read_bytes(), 0, {}
    while start < len(content):
        record = read_record(content, start)
        found[record.key] = torch.frombuffer(bytearray(record.payload), dtype=torch.bfloat16).float()
        start += record.bytes
    return found


def test_captions_of_another_template_have_states_of_their_own(shards: Path, tower: dict[str, Any]) -> None:
    codec = made(shards, {"text_encoder": tower}, TEXT)
    assert codec in ShardSet.open(shards).codecs
    assert codec not in ShardSet.open(shards, caption_template="{title}").codecs


LATENT = [
    *("name=tiny", "alignment=none", "perceptual=none", "data.source=null", "data.image_size_px=16"),
    *("data.global_batch_size=8", "data.val_samples=8", "data.url=shards", "data.num_workers=0", "prompts=[red]"),
    *("model.backbone.block_channels=[16,32]", "model.backbone.attention_sides=[4]", "model.backbone.norm_groups=8"),
    *("model.backbone.head_channels=16", "model/codec=vae", "model/text_encoder=open_clip_pretrained"),
    *("model.text_encoder.pretrained=null", "trainer.max_steps=4", "trainer.val_check_interval=2"),
    *("callbacks.progress=null", "callbacks.loss_plot=null", "callbacks.samples.every_n_steps=0"),
    *("callbacks.samples.at_steps=[]", "callbacks.checkpoints.keep_last=-1", "callbacks.checkpoints.every_n_steps=2"),
]


@pytest.mark.slow
def test_a_run_is_refused_then_told_what_to_do_then_trains_and_resumes(
    painter_shards: Path, vae: Path, tower: dict[str, Any], run_here, tmp_path: Path
) -> None:
    shutil.copytree(painter_shards, tmp_path / "shards")
    words = [*LATENT, "data.path=shards", f"model.codec.path={vae}", f"model.text_encoder.model={tower['model']}"]
    early = ["data.payload=latents", "data.text_states=true"]
    status, _, complaint = run_here("train", *words, *early, "run=none")
    assert status == 1
    command = re.search(r"`python -m diffusion_art.precompute (.*?)`", complaint)
    assert command is not None, complaint
    assert {"name=tiny", "alignment=none", "model/codec=vae", "data.path=shards"} <= set(shlex.split(command[1]))
    status, said, complaint = run_here("precompute", *shlex.split(command[1]), "progress=false", "workers=1")
    assert status == 0, complaint
    assert "150 records of latents" in said
    assert run_here("precompute", *words, "progress=false")[1].count("is there already") == 2
    assert run_here("train", *words, *early, "run=whole")[0] == 0
    assert run_here("train", *words, "run=plain")[0] == 0
    whole, plain = (tmp_path / "logs" / "tiny" / run for run in ("whole", "plain"))
    part = [f"ckpt_path={whole}/checkpoints/step_00000002.ckpt", "run=part"]
    assert run_here("train", *words, *early, *part)[0] == 0
    ours, theirs, ways = (
        read_checkpoint(find_checkpoint(run))["state_dict"] for run in (whole, whole.parent / "part", plain)
    )
    assert all(torch.equal(ours[name], theirs[name]) for name in ours | theirs)
    assert all(torch.allclose(ours[name], ways[name], atol=2e-2) for name in ours)
    status, _, complaint = run_here("train", *words, *early, "alignment=features", "run=aligned")
    assert (status, "alignment=none, or data.payload=jpeg" in complaint) == (1, True)
    sight = ["alignment=features", "alignment.tower.image_size_px=32", "data.image_features=true"]
    status, _, complaint = run_here("train", *words, *early, *sight, "run=none2")
    command = re.search(r"`python -m diffusion_art.precompute (.*?)`", complaint)
    assert command is not None, complaint
    status, said, complaint = run_here("precompute", *shlex.split(command[1]), "progress=false", "workers=1")
    assert status == 0, complaint
    assert "150 records of features" in said
    assert "data.payload=latents data.text_states=true data.image_features=true" in said
    assert run_here("train", *words, *early, *sight, "run=sighted")[0] == 0
    assert "train/alignment" in (whole.parent / "sighted" / "metrics.csv").read_text()
    status, _, complaint = run_here("train", *words, *early, "data.augmentation.horizontal_flip=0.5", "run=mirrored")
    assert (status, "which are not mirrored or cropped" in complaint) == (1, True)


@pytest.mark.parametrize(("kind", "part"), [("text", "text_encoder"), ("latents", "codec")])
def test_a_model_without_the_encoder_that_is_asked_is_told_so(kind: str, part: str, run_here) -> None:
    status, _, complaint = run_here("precompute", "+experiment=clip", "data.path=x", f"what=[{kind}]", "device=cpu")
    assert status == 1
    assert f"what=[{kind}] asks the {part} of a model, and this one has none" in complaint


def test_a_withheld_caption_is_told_as_none(tower: dict[str, Any], shards: Path) -> None:
    objective = Objective(times=Stratified(), weighting=NoWeighting())
    step = TrainingStep(toy_model(text_encoder=tower), objective, caption_dropout=0.5)
    wanted = Wanted(made(shards, {"text_encoder": tower}, TEXT), None, "")
    drawn = step.drawn(batches(shards, wanted, text_states=True)[0], global_batch_size=8)
    assert 0 < drawn.captions.count("") < 8
    on_the_way = step.model.encode_captions(drawn.captions)
    assert drawn.cond is not None
    length = on_the_way.tokens.shape[1]
    assert torch.equal(drawn.cond.mask[:, :length], on_the_way.mask)
    states = on_the_way.tokens.masked_fill(~on_the_way.mask[..., None], 0)
    torch.testing.assert_close(drawn.cond.tokens[:, :length], states, rtol=BF16, atol=1e-6)
    torch.testing.assert_close(drawn.cond.pooled, on_the_way.pooled, rtol=BF16, atol=1e-6)


def test_a_withheld_caption_is_longer_than_short_ones_of_a_pair(tower: dict[str, Any], shards: Path) -> None:
    pair = {"_target_": "diffusion_art.models.text_pair.TextPair", "encoders": {"first": tower, "second": tower}}
    objective = Objective(times=Stratified(), weighting=NoWeighting())
    step = TrainingStep(toy_model(text_encoder=pair), objective, caption_dropout=0.5)
    on_the_way = step.model.encode_captions(["red"] * 8)
    real = on_the_way.mask[0]
    kept = Conditioning(on_the_way.tokens[:, real], on_the_way.mask[:, real], on_the_way.pooled)  # as a record has it
    batch = replace(batches(shards)[0], captions=["red"] * 8, cond=kept)
    drawn = step.drawn(batch, global_batch_size=8)
    assert 0 < drawn.captions.count("") < 8
    assert drawn.cond is not None
    told = step.model.encode_captions(drawn.captions)
    for row in range(8):
        assert torch.equal(drawn.cond.tokens[row][drawn.cond.mask[row]], told.tokens[row][told.mask[row]])


def test_a_pair_is_asked_before_where_each_of_its_encoders_is_frozen(tower: dict[str, Any], tmp_path: Path) -> None:
    def model(second: dict[str, Any]) -> dict[str, Any]:
        pair = {"_target_": "diffusion_art.models.text_pair.TextPair", "encoders": {"first": tower, "second": second}}
        return {"codec": {"_target_": "diffusion_art.models.codec.Pixel"}, "text_encoder": pair}

    assert chosen(None, model(tower)) == ("text",)
    with pytest.raises(UserError, match="its text encoder is trained"):
        chosen(None, model({"_target_": "diffusion_art.models.text_encoder.OpenClipScratch"}))
