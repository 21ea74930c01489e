"""A CLIP that is trained here: open_clip's loss, its folder, and what it is good for afterwards."""

from __future__ import annotations

import math
from typing import Any

import open_clip
import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from torch.nn import functional as F

from diffusion_art.callbacks.retrieval import recall_at_1
from diffusion_art.checkpoints import find_checkpoint, read_checkpoint
from diffusion_art.models.clip import Clip
from diffusion_art.models.clip_to_train import Contrastive, TrainableClip
from diffusion_art.models.image_tower import OpenClipImage
from diffusion_art.models.text_encoder import OpenClipPretrained
from diffusion_art.record import KEY
from diffusion_art.tensors import Batch
from diffusion_art.training.plain_steps import ClipStep
from tests.fakes import toy_run

CAPTIONS = ["a red house", "a blue house", "a green sea", "planes"]


def small(seed: int = 0) -> TrainableClip:
    torch.manual_seed(seed)
    sizes: dict[str, Any] = {"image_width": 16, "image_layers": 1, "text_width": 16, "text_layers": 1}
    return TrainableClip(image_size_px=16, dim=8, patch_size_px=4, head_channels=8, context_length=16, **sizes)


def batch_of(captions: list[str]) -> Batch:
    count = len(captions)
    images = torch.rand(count, 3, 16, 16, generator=torch.Generator().manual_seed(0)) * 2 - 1
    return Batch(images, captions, [""] * count, list(range(count)), cursor=1)


def test_its_loss_is_that_of_both_directions():
    step = ClipStep(small(), Contrastive())
    batch = batch_of(CAPTIONS)
    x, y = step.model.images(batch.images), step.model.captions(CAPTIONS)
    torch.testing.assert_close(x.norm(dim=1), torch.ones(4))
    logits = x @ y.T / 0.07
    own = torch.arange(4)
    wanted = (F.cross_entropy(logits, own) + F.cross_entropy(logits.T, own)) / 2
    losses = step(step.drawn(batch, global_batch_size=4), step=0)
    torch.testing.assert_close(losses.total(), wanted)
    assert len(losses.per_picture) == 4
    with torch.no_grad():
        step.model.net.logit_scale.fill_(math.log(1e6))
    assert float(step.model.scale.detach()) == pytest.approx(100)


def test_it_learns_its_pairs_and_open_clip_reads_its_folder(tmp_path):
    step = ClipStep(small(), Contrastive())
    model, batch = step.model, batch_of(CAPTIONS)
    optimizer = torch.optim.Adam(step.parameters(), lr=3e-3)
    for _ in range(40):
        loss = step(step.drawn(batch, global_batch_size=4), step=0).total()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    x, y = model.images(batch.images), model.captions(CAPTIONS)
    assert recall_at_1(x, y, CAPTIONS) == (1.0, 1.0)

    (run := tmp_path / "run" / "clip").mkdir(parents=True)
    model.write(run)
    net = open_clip.create_model(f"local-dir:{run}").eval()
    ids = open_clip.get_tokenizer(f"local-dir:{run}", context_length=16)(CAPTIONS)
    torch.testing.assert_close(net.encode_text(ids, normalize=True), y)
    named = f"local-dir:{tmp_path}"  # the newest run in it
    clip = Clip(model=named, pretrained=None)
    torch.testing.assert_close(clip.images(batch.images), x.detach())
    torch.testing.assert_close(clip.captions(CAPTIONS), y.detach())
    encoder = OpenClipPretrained(model=named, pretrained=None)
    torch.testing.assert_close(F.normalize(encoder.encode(CAPTIONS).pooled), y.detach())
    assert OpenClipImage(model=f"local-dir:{tmp_path / 'run'}", pretrained=None).dim == 16


def test_a_caption_that_pictures_share_is_that_of_each():
    images = torch.eye(3)
    captions = torch.tensor([[0.0, 1.0, 0.0], [1.0, 0.0, 0.0], [0.0, 0.0, 1.0]])
    assert recall_at_1(images, captions, ["a", "a", "b"]) == (1.0, 1.0)
    assert recall_at_1(images, captions, ["a", "c", "b"]) == pytest.approx((1 / 3, 1 / 3))


def _one_of_two(rank: int, folder: str) -> None:
    dist.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=2)
    step, batch = ClipStep(small(), Contrastive()), batch_of(CAPTIONS)
    rows = slice(2 * rank, 2 * rank + 2)
    mine = Batch(batch.images[rows], batch.captions[rows], batch.keys[rows], batch.positions[rows], cursor=1)
    loss = step(step.drawn(mine, global_batch_size=4), step=0).total()
    loss.backward()
    mean = loss.detach() / 2
    dist.all_reduce(mean)
    for weight in step.parameters():
        weight.grad /= 2
        dist.all_reduce(weight.grad)
    if rank == 0:
        torch.save({"loss": mean, **{name: p.grad for name, p in step.named_parameters()}}, f"{folder}/seen.pt")
    dist.destroy_process_group()


@pytest.mark.slow
def test_two_processes_judge_the_whole_batch_with_the_gradients_of_one(tmp_path):
    mp.spawn(_one_of_two, args=(str(tmp_path),), nprocs=2)
    seen = torch.load(tmp_path / "seen.pt", weights_only=True)
    step = ClipStep(small(), Contrastive())
    loss = step(step.drawn(batch_of(CAPTIONS), global_batch_size=4), step=0).total()
    loss.backward()
    torch.testing.assert_close(seen.pop("loss"), loss.detach())
    for name, weight in step.named_parameters():
        torch.testing.assert_close(seen[name], weight.grad)


TINY = [
    *("+experiment=clip", "data.url=shards", "data.num_workers=0", "data.image_size_px=16", "data.source=null"),
    *("model.patch_size_px=4", "model.image_width=32", "model.image_layers=2", "model.text_width=32", "model.dim=32"),
    *("model.text_layers=1", "data.global_batch_size=24", "data.val_samples=24", "trainer.log_every_n_steps=1"),
    *("callbacks.progress=null", "callbacks.loss_plot=null"),
]


@pytest.mark.slow
def test_a_clip_is_trained_measured_resumed_and_used(painter_shards, run_here, tmp_path):
    data = [f"data.path={painter_shards}"]
    long = ["trainer.max_steps=120", "trainer.val_check_interval=60", "callbacks.checkpoints.every_n_steps=60"]
    status, said, complaints = run_here("train", *TINY, *data, *long, "run=first")
    assert status == 0, said + complaints
    assert "step 120: of 24 held-out pairs, " in said
    run = tmp_path / "logs" / "clip" / "first"
    columns, *rows = [line.split(",") for line in (run / "metrics.csv").read_text().splitlines()]
    for name in ("val/caption_of_picture", "val/picture_of_caption"):
        found = [float(row[columns.index(name)]) for row in rows if row[columns.index(name)]]
        assert len(found) == 2
        assert found[-1] >= 3 / 24  # by chance one
    net: Any = open_clip.create_model(f"local-dir:{run / 'clip'}")
    averaged = read_checkpoint(find_checkpoint(run))[KEY]["ema"]
    assert all(torch.equal(averaged[f"net.{name}"], value) for name, value in net.named_parameters())
    part = ["trainer.max_steps=120", f"ckpt_path={run}/checkpoints/step_00000060.ckpt", "run=part", *long[1:]]
    assert run_here("train", *TINY, *data, *part)[0] == 0
    ours, theirs = (read_checkpoint(find_checkpoint(run.parent / name))["state_dict"] for name in ("first", "part"))
    assert all(torch.equal(ours[name], theirs[name]) for name in ours | theirs)
    status, _, complaints = run_here("sample", f"run={run}", "prompts=red")
    assert status == 1
    assert "is a CLIP, which paints nothing by itself; its folder clip/ is one for" in complaints

    eyes = [f"clip.model=local-dir:{run}", "clip.pretrained=null", "pictures=8", "device=cpu"]
    painter = toy_run(tmp_path / "logs" / "toy" / "first")
    status, said, complaints = run_here(
        "evaluate", f"run={painter}", "metrics=[clip_score,cmmd]", f"real={painter_shards}", *eyes
    )
    assert status == 0, said + complaints
    aligned = ["alignment=open_clip", f"alignment.tower.model=local-dir:{run}", "alignment.tower.pretrained=null"]
    text = ["model/text_encoder=open_clip_pretrained", f"model.text_encoder.model=local-dir:{run}"]
    few = ["data.source=null", "data.url=shards", "data.num_workers=0", "trainer.max_steps=1", "prompts=[red]"]
    quiet = [
        "callbacks.progress=null",
        "callbacks.loss_plot=null",
        "callbacks.samples.every_n_steps=0",
        "perceptual=none",
    ]
    small = ["name=tiny", "data.image_size_px=16", "data.global_batch_size=8", "data.val_samples=8"]
    small += ["model.backbone.block_channels=[16,32]", "model.backbone.attention_sides=[4]"]
    small += ["model.backbone.norm_groups=8", "model.backbone.head_channels=16"]
    words = [*small, *data, *few, *quiet, *aligned, *text]
    status, said, complaints = run_here("train", *words, "model.text_encoder.pretrained=null", "run=told")
    assert status == 0, said + complaints
    assert "train/alignment" in (tmp_path / "logs" / "tiny" / "told" / "metrics.csv").read_text()


@pytest.mark.parametrize(
    ("overrides", "says"),
    [
        (["perceptual=features"], "a CLIP makes no pictures for perceptual: train it with perceptual=none."),
        (["compile=true"], "compile=True is for text-to-image models: a CLIP has compile=false."),
        (["init_from=somewhere"], "this run trains a CLIP: drop it."),
        (["model.patch_size_px=5"], "pictures of 16 px are no multiple of model.patch_size_px=5"),
        (["model.text_width=36"], "model.text_width=36 is no multiple of model.head_channels=32"),
        (["curriculum=progressive"], "a CLIP for pictures of 16 px cannot see those of "),
        (
            ["find_batch_size=auto", "memory_limit_gb=1"],
            "text-to-image models only: a CLIP takes find_batch_size",
        ),
    ],
)
def test_what_a_clip_has_no_use_for(overrides, says, painter_shards, run_here):
    status, said, complaints = run_here(
        "train", *TINY, f"data.path={painter_shards}", "trainer.max_steps=1", *overrides
    )
    assert status == 1, said
    assert says in complaints
