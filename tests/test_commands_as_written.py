"""Every command of the pages is run as it is written, with words after it that make it small; or it is said why not."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from zlib import crc32

import pytest
import trustme

from diffusion_art.shards.build.build import build_shards
from diffusion_art.sources.painter import Painter
from tests.conftest import ROOT
from tests.fakes import tiny_clip, tiny_transformer, toy_vae
from tests.fakes_buckets import bucketed_shards, write_pictures
from tests.fakes_sources import wikiart_folder, write_files
from tests.streaming.running import http, running
from tests.test_documented_commands import COMMAND, named

Words = tuple[str, ...]

NOT_RUN = {  # what a command matches -> what it needs, and which test does what can be done without
    r"trainer=(ddp|fsdp)": "several devices; tests/test_many_devices.py runs processes of a CPU",
    r"^consolidate": "a checkpoint in parts, as FSDP writes it; tests/test_more_machines.py",
    r"(?i)s3://bucket": "a bucket; tests/streaming/server/test_remote_shards.py",
    r"source=wikiart|google/t5": "the hub; tests/sources/parquet/test_hub.py",
    r"logger=wandb": "an account; tests/training/run/test_trackers.py trains offline",
    r"engine=ray": "Ray; tests/shards/build/test_engine.py",
    r"ws://a:8000": "two servers; tests/streaming/client/test_readers.py",
    r"judge=train": "minutes, and it writes the judge's weights into the package; tests/evaluation/test_judge.py",
    r"metrics=colourfulness": "a metric that the page adds; tests/test_extending.py",
    r"^end_to_end": "the hub and minutes; tests/stages/test_end_to_end.py",
    r"--status": "a server that runs; tests/streaming/test_status.py",
}
SERVERS = ("serve", "stream", "watch")  # they run until they are stopped

NETWORK = ("block_channels=[16,32]", "attention_sides=[4]", "head_channels=16", "norm_groups=8")
TRANSFORMER = ("width=32", "depth=2", "bottleneck=8", "context_from=1", "head_channels=16")
CLIP = ("model=local-dir:clip", "pretrained=null")
DATA = ("data.image_size_px=16", "data.build.workers=1", "data.val_fraction=0.3")
TRAIN = (
    *DATA,
    *("trainer.max_steps=2", "trainer.val_check_interval=2", "trainer.log_every_n_steps=1"),
    *("data.global_batch_size=8", "data.val_samples=8", "data.num_workers=0", "callbacks.progress=null"),
    *("lr_schedule.warmup_steps=1", "compile=false", "++callbacks.caption_following=null", "trainer=cpu"),
)
SMALL = {  # what a command matches -> the words that are put after it
    r"^train": TRAIN,
    r"^train.*=(quickstart|painter128|distill|ablation|autoencoder|clip)": ("data.source.count=150",),
    r"^train.*=wikiart": ("data.source=null",),
    r"^train(?!.*data.url)": ("data.url=shards",),
    r"^train(?!.*=(autoencoder|clip)\b)": ("sampler.num_steps=2",),
    r"^train(?!.*init_from)(?!.*=(autoencoder|clip|distill)\b)(?!.*(jit_base|_x0))": tuple(
        f"++model.backbone.{x}" for x in NETWORK
    ),
    r"^train.*(jit_base|_x0)": tuple(f"++model.backbone.{word}" for word in TRANSFORMER),
    r"^train.*=autoencoder\b": ("model.block_channels=[8,16]", "model.norm_groups=4"),
    r"wikiart_eir": ("++model.backbone.attention_sides=[8]",),
    r"^precompute .*=wikiart": ("data.source=null", *(f"model.text_encoder.{word}" for word in CLIP)),
    r"ckpt_path=last": ("trainer.max_steps=4",),
    r"debug=profile": ("trainer.max_steps=4", *(f"trainer.profiler.{x}=1" for x in ("skip", "steps", "traced"))),
    r"sweep=optuna": ("hydra.sweeper.n_trials=2",),
    r"^precompute": (*DATA, "workers=1", "progress=false"),
    r"^prepare.*path=DIR": ("source.path=FOLDER",),
    r"^prepare": ("limit=24", "workers=1", "progress=false", "out=prepared", "overwrite=true"),
    r"^evaluate": ("count=6", "held_out_count=4", "pictures=32", "val_pictures=8", "device=cpu", "seed=1"),
    r"^evaluate.*\bfd\b": ("pictures=1000", "features=judge"),
    r"^schedule_search": ("pictures=2", "fine_steps=16"),
    r"^(shards|stream).*(FOLDER|\.\.\.)": ("path=data/tutorial",),
    r"=\.\.\. num_steps": ("run=logs/quickstart",),
    r"size=144x112": ("run=logs/buckets", "size=20x12"),
    r"text_encoder=open_clip_pretrained": tuple(f"model.text_encoder.{word}" for word in CLIP),
    r"alignment=open_clip": tuple(f"alignment.tower.{word}" for word in CLIP),
    r"=pair\b": tuple(f"model.text_encoder.encoders.first.{word}" for word in CLIP),
    r"second=open_clip": tuple(f"model.text_encoder.encoders.second.{word}" for word in CLIP),
    r"clip.model=(ViT|local-dir:FOLDER)": tuple(f"clip.{word}" for word in CLIP),
    r"^train.*data/mine": ("++model.backbone.patch_size=2",),
}
POSTHOC = "logs/wikiart/first/checkpoints/posthoc_0.15.ckpt"
TOKEN = "only-the-two-of-them-know-it"
JIT = "model/backbone=jit_base"
MINE = "data.path=data/my-pictures"
MADE_BY: list[tuple[str, str, Words]] = [  # what a command matches -> a path, and the command that makes it
    (r"=\[?logs/quickstart\b(?!/a)", "logs/quickstart/RUN", ("train", "+experiment=quickstart", "ema=post_hoc")),
    (r"logs/quickstart/a", "logs/quickstart/a", ("train", "+experiment=quickstart", "seed=1")),
    (r"logs/quickstart/b", "logs/quickstart/b", ("train", "+experiment=quickstart", "seed=2")),
    (r"32/tutorial|run=tutorial ckpt", "logs/quickstart32/tutorial", ("train", "+experiment=quickstart32")),
    (r"sweep_grid/0", "logs/quickstart32/sweep_grid/0", ("train", "+experiment=quickstart32", "seed=1")),
    (r"sweep_grid/1", "logs/quickstart32/sweep_grid/1", ("train", "+experiment=quickstart32", "seed=2")),
    (r"logs/wikiart", "logs/wikiart/first", ("train", "+experiment=wikiart", "ema=post_hoc")),
    (r"quickstart run=first ckpt", "logs/quickstart/first", ("train", "+experiment=quickstart")),
    (r"wikiart run=first ckpt", "logs/wikiart/first", ("train", "+experiment=wikiart", "ema=post_hoc")),
    (r"logs/openclipart/mine", "logs/openclipart/mine", ("train", "+experiment=openclipart", MINE)),
    (r"logs/autoencoder", "logs/autoencoder/made", ("train", "+experiment=autoencoder")),
    (r"logs/clip", "logs/clip/made", ("train", "+experiment=clip")),
    (r"logs/distill", "logs/distill/made", ("train", "+experiment=distill", "teacher.run=logs/quickstart")),
    (r"size=144x112", "logs/buckets/made", ("train", "+experiment=wikiart", "data.path=data/mine", JIT)),
    (r"run=painter.safe", "painter.safetensors", ("export", "run=logs/quickstart", "path=painter.safetensors")),
    (r"run=klimt", "klimt.safetensors", ("export", "run=logs/quickstart", "path=klimt.safetensors")),
    (r"init_from=painter", "painter", ("export", "run=logs/quickstart", "format=diffusers", "path=painter")),
    (r"=posthoc_0.15", POSTHOC, ("posthoc_ema", "run=logs/wikiart/first", "sigma_rel=[0.15]")),
]


def why_not(words: Words) -> str | None:
    """What the command needs that is not here; None for one that is run."""
    line = " ".join(words)
    return next((reason for pattern, reason in NOT_RUN.items() if re.search(pattern, line)), None)


def run_ones() -> list[Words]:
    """Those that end by themselves; where a page writes `a|b`, both."""
    found = [words for words in named(COMMAND) if why_not(words) is None and words[0] not in SERVERS]
    several = [words for words in found if "|" in "".join(words[1:2])]
    each = [(words[0], part, *words[2:]) for words in several for part in words[1].split("|")]
    return [words for words in found if words not in several] + each


def server_ones() -> list[Words]:
    return [words for words in named(COMMAND) if why_not(words) is None and words[0] in SERVERS]


def small(words: Words) -> Words:
    """The command, and after it what makes it small."""
    line = " ".join(words)
    more = [word for pattern, words in SMALL.items() if re.search(pattern, line) for word in words]
    alone = [f"name=tried/{crc32(line.encode()):x}"] if words[0] == "train" and "ckpt_path=last" not in words else []
    return (*words, *more, *alone)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory, painter_shards: Path) -> Path:
    """A folder with what the pages name: shards of 16 px, collections, encoders. Runs are made when one is named."""
    folder = tmp_path_factory.mktemp("place")
    for name in ("painter-16px", "painter-64px", "tutorial", "wikiart-16px", "wikiart-128px", "my-pictures", "a"):
        shutil.copytree(painter_shards, folder / "data" / name)
    shutil.copytree(painter_shards, folder / "data/paintings-128px")
    build_shards(Painter(count=60, seed=1), folder / "data/b", image_size_px=16, progress=False, workers=1)
    bucketed_shards(folder / "data/mine")
    wikiart_folder(write_pictures(folder / "FOLDER"), count=20)
    for name in ("My Pictures (2)", "museum/scans", "coco/train2017", "pictures"):
        write_pictures(folder / name)
    rows = [f"scans/{number:03d}.png,Artist,Title {number}" for number in range(40)]
    write_files(folder, {"museum/objects.csv": "\n".join(["file,artist,title", *rows]), "prompts.txt": "red\nblue\n"})
    images = [{"id": number, "file_name": f"{number:03d}.png"} for number in range(40)]
    said = [{"id": number, "image_id": number, "caption": f"picture {number}"} for number in range(40)]
    coco = json.dumps({"images": images, "annotations": said})
    write_files(folder, {"coco/annotations/captions_train2017.json": coco})
    for name in ("PLACE", "folders/sdxl-vae"):
        toy_vae(folder / name)
    tiny_clip(folder / "clip")
    tiny_transformer(folder / "t5", "t5")
    issued = trustme.CA().issue_cert("127.0.0.1")
    issued.private_key_pem.write_to_path(folder / "key.pem")
    issued.cert_chain_pems[0].write_to_path(folder / "cert.pem")
    return folder


@pytest.fixture
def tmp_path(place: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where `run_here` runs commands: the same folder for all of them."""
    monkeypatch.setenv("HOME", str(place))
    monkeypatch.setenv("DIFFUSION_ART_CACHE", str(place / "cache"))
    return place


Run = Callable[..., tuple[int, str, str]]


def provide(words: Words, place: Path, run_here: Run) -> None:
    """Make the runs and files that the command names, each once."""
    line = " ".join(words)
    for pattern, name, making in MADE_BY:
        if re.search(pattern, line) and not (place / name).exists():
            provide(making, place, run_here)
            parts = name.split("/", 2)
            where = (f"name={parts[1]}", f"run={parts[2]}") if making[0] == "train" else ()
            status, said, complaints = run_here(*small(making), *where)
            assert status == 0, said + complaints
    if words[0] == "train" and set(words) & {"data.payload=latents", "data.text_states=true"}:
        asked = [word for word in words[1:] if word not in ("data.payload=latents", "data.text_states=true")]
        assert run_here(*small(("precompute", *asked)))[0] == 0
    for number in re.findall(r"RUN/checkpoints/(step_\d+)\.ckpt", line):
        checkpoints = place / "logs/quickstart/RUN/checkpoints"
        shutil.copyfile(checkpoints / "last.ckpt", checkpoints / f"{number}.ckpt")


def marked(words: Words) -> object:
    """CI runs what paints and looks at shards; it has no room for the rest."""
    quick = words[0] in ("sample", "shards")
    return pytest.param(words, id=" ".join(words), marks=[pytest.mark.slow, *([] if quick else [pytest.mark.longest])])


def test_each_reason_not_to_run_a_command_is_one():
    lines = [" ".join(words) for words in named(COMMAND)]
    for pattern, reason in NOT_RUN.items():
        assert any(re.search(pattern, line) for line in lines), pattern
        for test in re.findall(r"tests/[\w/]+\.py", reason):
            assert (ROOT / test).is_file(), test
    stale = [pattern for pattern in SMALL if not any(re.search(pattern, line) for line in lines)]
    assert stale == []
    assert len(run_ones()) > 100


@pytest.mark.filterwarnings("ignore:__array__ implementation doesn't accept a copy keyword")  # diffusers' schedulers
@pytest.mark.parametrize("words", [marked(words) for words in run_ones()])
def test_a_command_of_the_pages_does_what_it_says(words: Words, place: Path, run_here: Run):
    provide(words, place, run_here)
    with stream_of(words, place) as more:
        status, said, complaints = run_here(*small(words), *more)
    if len(words) == 1 and "run=" in complaints:  # the bare name of a command that wants a run says so
        assert (status, words[0] in ("evaluate", "sample")) == (1, True)
        return
    assert status == 0, said[-2000:] + complaints[-3000:]
    assert said
    for made in (word.partition("=")[2] for word in words if re.match(r"(out|path)=(?!data/|\[|FOLDER)", word)):
        assert (place / ("prepared" if words[0] == "prepare" else made)).exists(), made


@contextmanager
def stream_of(words: Words, place: Path) -> Iterator[Words]:
    """A server for a training that names one, as the word that names it here."""
    if not any(re.fullmatch(r"data\.url=ws://127\.0\.0\.1:\d+/ws", word) for word in words):
        yield ()
        return
    with running(place / "data/wikiart-16px") as url:
        yield (f"data.url={url}",)


@contextmanager
def started(words: Words, place: Path, more: dict[str, str]) -> Iterator[str]:
    """The address that a server says it answers at. Ctrl-C ends it."""
    line = [sys.executable, "-m", f"diffusion_art.{words[0]}", *words[1:], "port=0"]
    process = subprocess.Popen(
        line,
        cwd=place,
        env={**os.environ, "PYTHONPATH": str(ROOT), **more},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    assert process.stdout is not None
    try:
        said = (re.search(r" at ((?:http|ws)s?://[^\s;]+)", line) for line in process.stdout)
        yield next(found[1] for found in said if found).replace("0.0.0.0", "127.0.0.1")
    finally:
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=60)
    assert process.returncode in (0, 128 + signal.SIGINT)


@pytest.mark.slow
@pytest.mark.longest
@pytest.mark.parametrize("words", server_ones(), ids=" ".join)
def test_a_server_of_the_pages_answers_until_it_is_stopped(words: Words, place: Path, tmp_path: Path, run_here: Run):
    provide(words, place, run_here)
    named_here = ("data.path=data/tutorial",) if re.search(r"path=(FOLDER|\.\.\.)", " ".join(words)) else ()
    if "caption_template=..." in words:
        named_here = (*named_here, "caption_template={title}")
    given = {f"DIFFUSION_ART_{name}_TOKEN": TOKEN for name in ("SERVE", "STREAM") if "host=0.0.0.0" in words}
    with started((*words, *named_here), place, given) as url:
        if url.startswith("wss:"):
            return
        page = "/" if words[0] == "watch" else "/health"
        status, _, said = http(url.rstrip("/"), page, **({"Authorization": f"Bearer {TOKEN}"} if given else {}))
        assert (status, bool(said)) == (200, True)
