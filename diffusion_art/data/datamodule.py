"""Shards, server and loaders of one run, and the one integer that says how far it has read.

The state of the data is the *cursor*: global batches trained on. Every batch carries its own; the callback
`callbacks/cursor.py` stores the one just trained on here, and the checkpoint saves it. Loaders keep no state:
they prefetch, so theirs would be ahead of training.
"""

from __future__ import annotations

import logging
import math
import os
import shlex
import time
from collections.abc import Callable, Iterator
from contextlib import closing, nullcontext, suppress
from functools import partial
from typing import Any, Protocol, runtime_checkable

from lightning.pytorch import LightningDataModule
from torch.utils.data import DataLoader

from diffusion_art.data.curriculum import Curriculum
from diffusion_art.data.dataset import Reader, StreamDataset
from diffusion_art.data.plan import Bucketed, BucketsOnce
from diffusion_art.data.precomputed import PLAIN, Wanted, on_device
from diffusion_art.data.ring import Ring
from diffusion_art.data.transforms import Augmentation
from diffusion_art.data.workers import Crew, LostWorker, someone_died
from diffusion_art.errors import UserError
from diffusion_art.shards.captioning import told_template
from diffusion_art.shards.mixture import Shards, ShardSpec, open_shards
from diffusion_art.shards.payloads import PAYLOADS, give, is_made, payload_of
from diffusion_art.sizes import log_ratio, named, refuse_fractions, scaled_to, size_named
from diffusion_art.streaming.client.line import OtherProtocol
from diffusion_art.streaming.client.readers import ShardReader, StreamClient
from diffusion_art.streaming.client.session import ReadRequest
from diffusion_art.streaming.eir.client import DIGEST as EIR_DIGEST
from diffusion_art.streaming.eir.client import EirReader
from diffusion_art.streaming.server.process import ServerProcess
from diffusion_art.streaming.server.settings import Settings
from diffusion_art.tensors import Batch
from diffusion_art.units import counted

log = logging.getLogger(__name__)

PREFETCH = 4  # batches that a worker prepares ahead
HELD = 3  # batches that training may hold meanwhile, until a worker takes memory that is not used again


@runtime_checkable
class SelfMade(Protocol):
    """Shards that find or build themselves (`shards.build.locate.Shards`)."""

    def ready(self) -> ShardSpec: ...

    def are_squares(self) -> bool: ...


_USER_ERROR = f"{UserError.__module__}.{UserError.__qualname__}"


class TimedLoader(DataLoader):
    """A `DataLoader` that adds up how long training stood waiting for a batch, in seconds.

    Raises:
        LostWorker: a worker was killed, with whatever signal.
    """

    wait_s = 0.0

    def __iter__(self) -> Iterator[Batch]:  # pyright: ignore[reportIncompatibleMethodOverride] -- wraps torch's own
        self.dataset.settle()  # type: ignore[attr-defined]
        with self.crew.starting() if self.crew else nullcontext():
            batches = super().__iter__()
        while True:
            began = time.perf_counter()
            try:
                batch = next(batches)
            except StopIteration:
                return
            except UserError as error:
                # A worker's error arrives with its traceback as text; its last line is what it had to say.
                raise UserError(str(error).strip().splitlines()[-1].removeprefix(f"{_USER_ERROR}: ")) from None
            except (RuntimeError, OSError, EOFError) as error:
                # Where torch saw it itself it says so; else the worker died while it handed its memory over.
                if not str(error).startswith("DataLoader worker") and not someone_died(batches):
                    raise
                raise LostWorker(
                    f"a worker that prepares the data was killed ({error}), most often for want of memory. "
                    f"Resume with less than data.num_workers={self.num_workers}, or with a smaller data.window."
                ) from error
            self.wait_s += time.perf_counter() - began
            yield batch

    @property
    def crew(self) -> Crew | None:
        """Its worker processes."""
        return getattr(self, "worker_init_fn", None)  # not yet there where the constructor failed

    def dismiss(self) -> None:
        """The workers are needed no longer."""
        if self.crew:
            self.crew.dismiss()

    def __del__(self) -> None:
        self.dismiss()

    def state_dict(self) -> dict:
        """Empty: the cursor lives in the data module. Having the method tells Lightning that resuming is exact."""
        return {}

    def load_state_dict(self, state: dict) -> None: ...


class StreamDataModule(LightningDataModule):
    """Feeds a run from shards, over a socket or straight from disk.

    `url`: `auto` starts a server for this run on a free loopback port, and restarts it should it die; `shards`
    reads the shards without a socket (the batches are identical); anything else is the address of a running
    server, or a list of them. `shards` are a folder of them, several to mix, or what makes itself `ready` when it is
    asked to; a server at a given `url` has its own, and then they are not asked for. A server that speaks only EIR's
    protocol is read too (streaming/eir): batches are counted as ever, but their order is the server's.

    `payload` is what travels: `jpeg` as stored, decoded by the loaders, or `u8`, the pixels, decoded once into the
    folder `cache` (decoded.py) for networks that are faster than the loaders. The batches are identical, but for JPEGs
    that are decoded small (pixels.py). `latents` are those of the model's codec, computed before. With `text_states`
    captions bring what the text encoder said of them, computed before too, and with `image_features` pictures what the
    image tower of an alignment sees in them. `precomputed` says of which encoders, and is
    given once the model is built. `crc` proves that each frame arrived as it was sent. Loaders give pictures as
    bytes; they become floats in [-1, 1] on the device. `curriculum` trains on smaller ones first, from the same shards
    and server. `caption_template` is what a running server must make its captions by, None for any; shards of one's own
    come with theirs. `overfit_batches` trains on the first of them again and again
    (below 1: on that share of the data), and validates on the same pictures.

    Raises:
        UserError: no such server or shards, a batch size the ranks cannot share, or a checkpoint made with
            other data, batch size, parts of a step or seed.
    """

    def __init__(
        self,
        *,
        shards: ShardSpec | SelfMade = (),
        url: str | list[str] = "auto",
        token: str | None = None,
        ca: str | None = None,
        image_size_px: int,
        global_batch_size: int,
        val_samples: int = 1024,
        num_workers: int,
        seed: int = 0,
        augmentation: Augmentation | None = None,
        curriculum: Curriculum | None = None,
        window: int = 4,
        max_bad: int = 100,
        payload: str = "jpeg",
        text_states: bool = False,
        image_features: bool = False,
        crc: bool = True,
        cache: str | None = None,
        caption_template: str | None = None,
        overfit_batches: float = 0,
    ) -> None:
        super().__init__()
        if payload not in PAYLOADS:
            raise UserError(f"data.payload={payload} is not one of {', '.join(PAYLOADS)}; leave it at jpeg if in doubt")
        self.shards = shards
        self.url = url
        self.token = token
        self.ca = ca
        self.image_size_px = image_size_px
        self.global_batch_size = global_batch_size
        self.val_samples = val_samples
        self.num_workers = num_workers
        self.seed = seed
        self.augmentation = augmentation
        self.curriculum = curriculum or Curriculum()
        self.window = window
        self.max_bad = max_bad
        self.payload = payload
        self.text_states = text_states
        self.image_features = image_features
        self.precomputed: Wanted | None = None
        self.crc = crc
        self.cache = cache
        self.caption_template = caption_template
        self.without_caption: int | None = None  # pictures, as far as that is known
        self.overfit_batches = overfit_batches
        self.cursor = 0
        self.info: Any = None
        self.train_loader: TimedLoader | None = None
        self._loaders: list[TimedLoader] = []
        self._server: ServerProcess | None = None
        self._restored: dict | None = None
        self._open_reader: Callable[[], Reader] | None = None

    # ------------------------------------------------------------------ set-up

    def prepare_data(self) -> None:
        """Build the shards, and make the payload, where that is missing. Lightning calls this in one process only."""
        if self.url in ("auto", "shards"):
            spec = self._ready_shards()
            if is_made(self.payload):
                give(open_shards(spec), self.payload, cache=self.cache)
            elif self.precomputed is not None:
                self._check_computed(self.precomputed, open_shards(spec))

    @property
    def codec(self) -> str:
        """What is asked for on the wire.

        Raises:
            UserError: it is of encoders, and nobody has said of which.
        """
        if self.precomputed is not None:
            return self.precomputed.codec
        if self.text_states or self.image_features or payload_of(self.payload).encoded:
            raise UserError(f"latents, text states and features are those of a model, and none is at hand: set {PLAIN}")
        return self.payload

    def _check_computed(self, wanted: Wanted, shards: Shards) -> None:
        """UserError where the run asks for what was not computed of these shards."""
        if wanted.codec not in shards.codecs:
            there = ", ".join(name for name in shards.codecs if ":" in name) or "nothing of any encoder"
            raise UserError(f"{shards.name} has {there} beside it, and not {wanted.codec}: {wanted.remedy}")

    def _ready_shards(self) -> ShardSpec:
        return self.shards.ready() if isinstance(self.shards, SelfMade) else self.shards

    def training_samples(self) -> int:
        """Pictures of the training split, for which no server is started; shards that are missing are built.

        Raises:
            UserError: nobody can tell.
        """
        if self.url in ("auto", "shards"):
            return open_shards(self._ready_shards()).splits.get("train", 0)
        with closing(StreamClient(self.url, token=self.token, ca=self.ca)) as reader:
            try:
                info = reader.info()
            except OtherProtocol:
                info = self._open_eir_reader().info()
        if "train" not in info.splits:
            raise UserError(f"{info.name} does not say how many samples it has; set trainer.max_steps instead")
        return info.splits["train"]

    def sizes(self) -> list[str]:
        """The sizes (`160x96`) that the run trains on where pictures keep their shape, the square among them; empty
        where all are squares. No server is started; shards that may hold other shapes and are missing are built.

        Raises:
            UserError: at `image_size_px` a side of a bucket is no whole number of pixels.
        """
        if self.url in ("auto", "shards") and isinstance(self.shards, SelfMade) and self.shards.are_squares():
            return []
        with closing(self._plain_reader()) as reader, suppress(OtherProtocol):
            info = reader.info()
            asked = {"stored_px": info.image_size_px, "asked_px": self.image_size_px}
            refuse_fractions(info.buckets, **asked)
            found = {name for counts in info.buckets.values() for name in counts}
            square = (self.image_size_px, self.image_size_px)
            scaled = {scaled_to(size_named(name), **asked) for name in found} | ({square} if found else set())
            return [named(size) for size in sorted(scaled, key=log_ratio)]
        return []

    def _plain_reader(self) -> ShardReader | StreamClient:
        """One that asks for the shards, or a server that runs already."""
        if self.url in ("auto", "shards"):
            return ShardReader(self._ready_shards())
        return StreamClient(self.url, token=self.token, ca=self.ca)

    def example_captions(self, count: int) -> list[str]:
        """Up to `count` different captions from all over the validation split, always the same ones; of a data set
        without it, from the training split, and with `overfit_batches` those of the pictures trained on. Empty where no
        picture has a caption, and for an EIR server, whose samples can be read only once. No server is started; shards
        that are missing are built.
        """
        with closing(self._plain_reader()) as reader, suppress(OtherProtocol):
            splits = reader.info().splits
            split, size, seed = ("val", splits["val"], None) if splits.get("val") else ("train", splits["train"], None)
            if asked := self.overfit_batches:
                batches = asked if isinstance(asked, int) else int(asked * splits["train"]) // self.global_batch_size
                split, size, seed = "train", min(splits["train"], max(1, batches) * self.global_batch_size), self.seed
            places = dict.fromkeys((size * row) // count for row in range(count))
            requests = [ReadRequest(split=split, seed=seed, start=place, stop=place + 1) for place in places]
            found = [sample.caption for answer in reader.read(requests) for sample in answer]
            return [caption for caption in dict.fromkeys(found) if caption.strip()]
        return []

    def served_name(self) -> str | None:
        """What the data set of a server that runs already is called, if the server says so at once."""
        if self.url in ("auto", "shards"):
            return None
        reader = StreamClient(self.url, token=self.token, ca=self.ca, connect_for_s=0.0)
        with closing(reader), suppress(UserError, OtherProtocol):
            return reader.info().name
        return None

    def setup(self, stage: str | None = None) -> None:
        if self._open_reader is not None:
            return
        ours = self.url in ("auto", "shards")
        spec = self._ready_shards() if ours else ()
        if self.url == "shards":
            self._open_reader = partial(ShardReader, spec, codec=self.codec, cache=self.cache)
        else:
            urls = self.url
            if urls == "auto":
                settings = Settings(decode=is_made(self.payload), cache=self.cache)
                told = partial(os.kill, os.getpid())  # a signal for the server is one for the run
                self._server = ServerProcess(spec, settings=settings, told=told)
                urls = self._server.url
            self._open_reader = partial(
                StreamClient, urls, token=self.token, ca=self.ca, codec=self.codec, checksum=self.crc
            )
            if self.precomputed is not None:
                self._open_reader = partial(self._open_reader, remedy=self.precomputed.remedy)
        reader = self._open_reader()
        try:
            self.info = reader.info()
            if self.url != "shards":  # workers connect on their own, to these samples and captions and no others
                self._open_reader = partial(self._open_reader, met=self.info)
        except OtherProtocol:
            self._open_reader = open_eir = self._open_eir()
            self.info = open_eir().info()
        reader.close()
        if ours:
            self._tell_captions(spec)
        else:
            self._check_captions()
        self._check_restored()
        self._check_buckets()
        self._check_latents()
        world = self._world()[1]
        if self.global_batch_size % world:
            raise UserError(
                f"a global batch of {self.global_batch_size} pictures cannot be shared by {world} processes. "
                f"Set data.global_batch_size to a multiple of {world}."
            )
        if not self.info.splits.get("train", self.info.digest == EIR_DIGEST):  # an EIR server need not say how many
            raise UserError(f"the data set `{self.info.name}` has no training pictures: {self.info.splits}.")
        if 0 < self.info.splits.get("train", 0) < self.global_batch_size:
            log.warning(
                "data.global_batch_size=%d is more than the %s to train on: a step sees some of them several times",
                self.global_batch_size,
                counted(self.info.splits["train"]),
            )
        if self.trainer is not None and not self._validation():
            self.trainer.limit_val_batches = 0
        log.info(
            "data: %s, %s, global batch %d, from %s",
            self.info.name,
            ", ".join(f"{count:,} {split}" for split, count in self.info.splits.items()),
            self.global_batch_size,
            self._server.url if self._server else self.url,
        )

    def _check_captions(self) -> None:
        """A server that was started by others makes the captions as it was told to."""
        given = self.info.caption_template
        if self.caption_template is not None and given != self.caption_template:
            again = shlex.quote(f"caption_template={self.caption_template}")
            raise UserError(
                f"the stream server at {self.url} makes its captions by {given!r}, and this run asks for "
                f"data.caption_template={self.caption_template!r}. Leave that out, or start the server again: "
                f"`python -m diffusion_art.stream data.path=FOLDER {again}`"
            )

    def _tell_captions(self, spec: ShardSpec) -> None:
        """Say how many pictures have no caption."""
        self.without_caption = open_shards(spec).without_caption()
        if self.without_caption:
            log.warning(
                "%d of %d pictures have no caption: they teach what pictures look like, not what words mean",
                self.without_caption,
                sum(self.info.splits.values()),
            )

    def _check_latents(self) -> None:
        """Latents were made of pictures of one size."""
        if self.precomputed is None or not self.precomputed.latents:
            return
        if self.info.buckets:
            raise UserError(
                f"{self.info.name} holds pictures in buckets, which are encoded on the way: set data.payload=jpeg"
            )
        if self.info.image_size_px != self.image_size_px:
            raise UserError(
                f"the latents of {self.info.name} are of pictures of {self.info.image_size_px} px, and this run has "
                f"data.image_size_px={self.image_size_px}: give it data.image_size_px={self.info.image_size_px}."
            )

    def _check_buckets(self) -> None:
        """Warn of buckets so small that a batch shows their pictures several times."""
        for asked in self.curriculum.sizes_px(self.image_size_px):
            refuse_fractions(self.info.buckets, stored_px=self.info.image_size_px, asked_px=asked)
        counts = self.info.buckets.get("train", {})
        small = [name for name, samples in counts.items() if samples < self.global_batch_size]
        if small:
            log.warning(
                "%d of %d buckets have fewer training pictures than a batch of %d, which then shows some of them "
                "several times (%s). No picture is seen more often than others for that; larger steps "
                "(bucket_step_px) or a smaller bucket_max_ratio give fewer buckets",
                len(small),
                len(counts),
                self.global_batch_size,
                ", ".join(f"{name}: {counts[name]}" for name in small[:5]),
            )

    def _open_eir(self) -> Callable[[], EirReader]:
        """How to read from a server that speaks only EIR's protocol; its validation samples are chosen here."""
        if self.codec != "jpeg":
            raise UserError(f"an EIR server sends encoded pictures and captions, not {self.codec}; set {PLAIN}")
        log.info(
            "%s speaks EIR's protocol 1.0 only: the order of the samples is the server's, and a resumed run reads on "
            "from where the server is, and validates on the next samples there, which it has been trained on if it is "
            "past its first pass",
            self.url,
        )
        open_reader = self._open_eir_reader
        chosen = open_reader().choose_validation(self.val_samples) if self._world()[0] == 0 else None
        if self._world()[1] > 1:
            chosen = self.trainer.strategy.broadcast(chosen)  # type: ignore[union-attr]
        validation, samples = chosen or ([], None)
        return partial(open_reader, validation=validation, samples=samples, met=True)

    def _open_eir_reader(self, **options: Any) -> EirReader:
        return EirReader(self.url, token=self.token, ca=self.ca, **options)

    def teardown(self, stage: str | None = None) -> None:
        if self._server is not None:
            self._server.stop()
        self._server = None
        for loader in self._loaders:
            loader.dismiss()
        self._loaders = []
        self.train_loader = None  # or its workers would be waited for, seconds each, when we are collected
        self._open_reader = None

    # ------------------------------------------------------------------ loaders

    def train_dataloader(self) -> TimedLoader:
        batches = self._total_batches()
        dataset = self._dataset(
            split="train",
            seed=self.seed,
            last_batch=batches,
            first_batch=lambda: self.cursor,
            repeat=self._repeated(),
            plan=self._training_plan(),
            augmentation=self.augmentation,
            sizes=self.curriculum.batch_sizes(
                self.image_size_px,
                batches=batches,
                batches_per_step=self.accumulate_grad_batches,
            ),
        )
        self.train_loader = self._loader(dataset)
        return self.train_loader

    def val_dataloader(self) -> TimedLoader | list:
        """The first `val_samples` of the validation split in stored order: always the same pictures."""
        chosen = self._validation()
        return self._loader(self._dataset(**chosen)) if chosen else []

    def _validation(self) -> dict[str, Any] | None:
        """What is validated on, if anything."""
        if repeated := self._repeated():
            return {"split": "train", "seed": self.seed, "last_batch": repeated, "plan": self._training_plan()}
        samples = min(self.val_samples, self.info.splits.get("val", 0))
        if samples == 0:
            return None
        asked = {"split": "val", "seed": None, "samples": samples}
        if buckets := self.info.buckets.get("val"):
            plan = BucketsOnce("val", buckets, samples, self.global_batch_size)
            return {**asked, "last_batch": len(plan), "plan": plan}
        return {**asked, "last_batch": -(-samples // self.global_batch_size)}

    def _training_plan(self) -> Bucketed | None:
        """How training goes through the buckets, where pictures keep their shape."""
        buckets = self.info.buckets.get("train")
        if not buckets:
            return None
        return Bucketed("train", buckets, self.global_batch_size, seed=self.seed, digest=self.info.digest)

    def _repeated(self) -> int | None:
        """How many batches are trained on again and again; None: all there are."""
        asked = self.overfit_batches
        if not asked:
            return None
        return max(1, int(asked * self.batches_of(1))) if isinstance(asked, float) else asked

    def on_after_batch_transfer(self, batch: Batch, dataloader_idx: int) -> Batch:
        """Pictures become floats where they are used: a quarter of their bytes travelled."""
        return on_device(batch)

    @property
    def epoch(self) -> float:
        """Passes over the training split so far; 0 where its length is not known."""
        return self.cursor * self.global_batch_size / self.info.splits.get("train", math.inf) if self.info else 0.0

    def batches_of(self, epochs: float) -> int:
        """Global batches that make `epochs` passes over the training split."""
        if "train" not in self.info.splits:
            raise UserError(f"{self.info.name} does not say how many samples it has; set trainer.max_steps instead")
        return -(-int(epochs * self.info.splits["train"]) // self.global_batch_size)

    def _dataset(self, *, split: str, samples: int | None = None, **kwargs: Any) -> StreamDataset:
        rank, world = self._world()
        assert self._open_reader is not None, "setup() opens the stream"
        return StreamDataset(
            self._open_reader,
            split=split,
            samples=samples or self.info.splits.get(split, 0),
            global_batch_size=self.global_batch_size,
            image_size_px=self.image_size_px,
            stored_size_px=self.info.image_size_px,
            rank=rank,
            world=world,
            window=self.window,
            max_bad=self.max_bad,
            codec=self.codec,
            latents=self.precomputed.latents if self.precomputed else None,
            **kwargs,
        )

    def _loader(self, dataset: StreamDataset) -> TimedLoader:
        if self.num_workers:
            dataset.ring = Ring(workers=self.num_workers, slots=PREFETCH + HELD)
        loader = TimedLoader(
            dataset,
            batch_size=None,
            num_workers=self.num_workers,
            prefetch_factor=PREFETCH if self.num_workers else None,
            persistent_workers=self.num_workers > 0,
            pin_memory=self._trains_on_cuda(),
            worker_init_fn=Crew() if self.num_workers else None,
        )
        self._loaders.append(loader)
        return loader

    def _trains_on_cuda(self) -> bool:
        return self.trainer is not None and self.trainer.strategy.root_device.type == "cuda"

    def _world(self) -> tuple[int, int]:
        return (self.trainer.global_rank, self.trainer.world_size) if self.trainer else (0, 1)

    @property
    def accumulate_grad_batches(self) -> int:
        """Global batches that make a step."""
        return self.trainer.accumulate_grad_batches if self.trainer else 1

    def _total_batches(self) -> int:
        if self.trainer is None:
            return self.batches_of(1)
        return self.trainer.max_steps * self.accumulate_grad_batches

    # ------------------------------------------------------------------ state

    def state_dict(self) -> dict[str, Any]:
        return {
            "cursor": self.cursor,
            "seed": self.seed,
            "global_batch_size": self.global_batch_size,
            "accumulate_grad_batches": self.accumulate_grad_batches,
            "digest": self.info.digest if self.info else None,
            "name": self.info.name if self.info else None,
            "caption_template": self.info.caption_template if self.info else None,
        }

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.cursor = int(state_dict["cursor"])
        self._restored = state_dict
        self._check_restored()

    def _check_restored(self) -> None:
        """A cursor means something only in the order it was counted in."""
        if self._restored is None or self.info is None:
            return
        saved = self._restored
        mends = {
            "seed": "seed",
            "global_batch_size": "data.global_batch_size",
            "accumulate_grad_batches": "trainer.accumulate_grad_batches",
        }
        for field, key in mends.items():
            if saved.get(field, ours := getattr(self, field)) != ours:
                raise UserError(
                    f"the checkpoint was trained with {key}={saved[field]}, this run has {ours}: its place in the data "
                    f"would be lost. Resume with {key}={saved[field]}."
                )
        if saved["digest"] not in (None, self.info.digest):
            raise UserError(
                f"the checkpoint was trained on data set `{saved['name']}` ({saved['digest'][:12]}), this run reads "
                f"`{self.info.name}` ({self.info.digest[:12]}). Resume with the data.path or data.url it was "
                f"trained on."
            )
        before, now = saved.get("caption_template", self.info.caption_template), self.info.caption_template
        if before != now:
            log.info(
                "the checkpoint was trained with captions %s, and this run goes on with captions %s",
                *(told_template(one) for one in (before, now)),
            )
