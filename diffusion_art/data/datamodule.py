"""Shards, server and loaders of one run, and the one integer that says how far it has read.

The state of the data is the *cursor*: global batches trained on. Every batch carries its own; the callback
`callbacks/cursor.py` stores the one just trained on here, and the checkpoint saves it. Loaders keep no state:
they prefetch, so theirs would be ahead of training.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

from lightning.pytorch import LightningDataModule
from torch import distributed

from diffusion_art.data.checks import (
    check_buckets,
    check_captions,
    check_has_pictures,
    check_latents,
    check_resumed,
    check_shared,
)
from diffusion_art.data.curriculum import Curriculum
from diffusion_art.data.dataset import Reader, StreamDataset
from diffusion_art.data.origin import Origin, SelfMade, training_samples_of
from diffusion_art.data.plan import Bucketed, BucketsOnce, Consecutive
from diffusion_art.data.precomputed import PLAIN, Wanted
from diffusion_art.data.transforms import Augmentation, on_device
from diffusion_art.data.workers import Crew, Ring, TimedLoader
from diffusion_art.errors import UserError
from diffusion_art.shards.mixture import open_shards
from diffusion_art.shards.pixels import PAYLOADS, is_made, payload_of
from diffusion_art.shards.places import ShardSpec
from diffusion_art.streaming.client.readers import ReadRequest
from diffusion_art.streaming.wire import StreamInfo
from diffusion_art.tensors import Batch

log = logging.getLogger(__name__)

T = TypeVar("T")

PREFETCH = 4  # batches that a worker prepares ahead
HELD = 3  # batches that training may hold meanwhile, until a worker takes memory that is not used again


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
        self.origin = Origin(shards, url, token=token, ca=ca, cache=cache, crc=crc)
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
        self.caption_template = caption_template
        self.without_caption: int | None = None  # pictures, as far as that is known
        self.overfit_batches = overfit_batches
        self.cursor = 0
        self.info: Any = None  # the StreamInfo of what is read from, once it was set up
        self.train_loader: TimedLoader | None = None
        self._loaders: list[TimedLoader] = []
        self._restored: dict | None = None
        self._open_reader: Callable[[], Reader] | None = None

    # ------------------------------------------------------------------ set-up

    def prepare_data(self) -> None:
        """Build the shards, and make the payload, where that is missing. Lightning calls this in one process only."""
        self.origin.prepare(self.payload, self.precomputed)

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

    def sizes(self) -> list[str]:
        """The sizes (`160x96`) that the run trains on where pictures keep their shape, the square among them; empty
        where all are squares. No server is started; shards that may hold other shapes and are missing are built.

        Raises:
            UserError: at `image_size_px` a side of a bucket is no whole number of pixels.
        """
        return self.origin.sizes(self.image_size_px)

    def example_captions(self, count: int) -> list[str]:
        """Up to `count` different captions from all over the validation split, always the same ones; of a data set
        without it, from the training split, and with `overfit_batches` those of the pictures trained on. Empty where no
        picture has a caption, and for an EIR server, whose samples can be read only once. No server is started; shards
        that are missing are built.
        """

        def chosen(info: StreamInfo) -> Iterator[ReadRequest]:
            splits, size = info.splits, self.global_batch_size
            split, held, seed, plan = "val" if splits.get("val") else "train", 0, None, None
            if asked := self.overfit_batches:
                batches = asked if isinstance(asked, int) else int(asked * splits["train"]) // size
                split, held, seed = "train", max(1, batches) * size, self.seed
                plan = self._training_plan(info)
            held = min(held or splits[split], splits[split])
            plan = plan or Consecutive(split, splits[split], size)
            for place in dict.fromkeys((held * row) // count for row in range(count)):
                batch, row = divmod(place, size)
                part = plan(batch)
                yield ReadRequest(part.split, seed, part.start + row, part.start + row + 1)

        return self.origin.captions(chosen)

    def setup(self, stage: str | None = None) -> None:
        if self._open_reader is not None:
            return
        self.info, self._open_reader = self.origin.open(
            self.codec,
            wanted=self.precomputed,
            decode=is_made(self.payload),
            val_samples=self.val_samples,
            agreed=self._agreed,
        )
        if self.origin.is_ours:
            self._tell_captions()
        else:
            check_captions(self.info, asked=self.caption_template, url=self.origin.url)
        self._check_resumed()
        sizes_px = self.curriculum.sizes_px(self.image_size_px)
        check_buckets(self.info, sizes_px=sizes_px, global_batch_size=self.global_batch_size)
        if self.precomputed is not None and self.precomputed.latents:
            check_latents(self.info, image_size_px=self.image_size_px)
        check_shared(self.global_batch_size, processes=self._world()[1])
        check_has_pictures(self.info, global_batch_size=self.global_batch_size)
        if self.trainer is not None and not self._validation():
            self.trainer.limit_val_batches = 0
        log.info(
            "data: %s, %s, global batch %d, from %s",
            self.info.name,
            ", ".join(f"{count:,} {split}" for split, count in self.info.splits.items()),
            self.global_batch_size,
            self.origin.address,
        )

    def _agreed(self, find: Callable[[], T]) -> T:
        """What `find` gives in the first process of the run, in all of them."""
        rank, world = self._world()
        found = find() if rank == 0 else None
        if world == 1:
            return found  # type: ignore[return-value]
        if self.trainer is not None:
            return self.trainer.strategy.broadcast(found)  # type: ignore[return-value]
        told = [found]
        distributed.broadcast_object_list(told)
        return told[0]  # type: ignore[return-value]

    def _tell_captions(self) -> None:
        """Say how many pictures have no caption."""
        self.without_caption = open_shards(self.origin.spec()).without_caption()
        if self.without_caption:
            log.warning(
                "%d of %d pictures have no caption: they teach what pictures look like, not what words mean",
                self.without_caption,
                sum(self.info.splits.values()),
            )

    def teardown(self, stage: str | None = None) -> None:
        self.origin.close()
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
            plan=self._training_plan(self.info),
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
            return {"split": "train", "seed": self.seed, "last_batch": repeated, "plan": self._training_plan(self.info)}
        samples = min(self.val_samples, self.info.splits.get("val", 0))
        if samples == 0:
            return None
        asked = {"split": "val", "seed": None, "samples": samples}
        if buckets := self.info.buckets.get("val"):
            plan = BucketsOnce("val", buckets, samples, self.global_batch_size)
            return {**asked, "last_batch": len(plan), "plan": plan}
        return {**asked, "last_batch": -(-samples // self.global_batch_size)}

    def _training_plan(self, info: StreamInfo) -> Bucketed | None:
        """How training goes through the buckets of `info`, where pictures keep their shape."""
        buckets, shares = info.buckets.get("train"), info.bucket_shares.get("train")
        if not buckets:
            return None
        return Bucketed("train", buckets, self.global_batch_size, seed=self.seed, digest=info.digest, shares=shares)

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
        return -(-int(epochs * training_samples_of(self.info)) // self.global_batch_size)

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
        """Which process this is, of how many: the trainer's, in a loop of one's own those of `torch.distributed`."""
        if self.trainer is not None:
            return self.trainer.global_rank, self.trainer.world_size
        if distributed.is_available() and distributed.is_initialized():
            return distributed.get_rank(), distributed.get_world_size()
        return 0, 1

    @property
    def accumulate_grad_batches(self) -> int:
        """Global batches that make a step."""
        return self.trainer.accumulate_grad_batches if self.trainer else 1

    def _total_batches(self) -> int:
        if self.trainer is None:
            return self.batches_of(1)
        if self.trainer.max_steps < 0:  # in a trainer of one's own
            steps = -(-self.batches_of(1) // self.accumulate_grad_batches)
            raise UserError(f"the trainer has no max_steps, and this data needs it: one epoch is max_steps={steps}.")
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
        self._check_resumed()

    def _check_resumed(self) -> None:
        """A cursor means something only in the order it was counted in."""
        if self._restored is not None and self.info is not None:
            ours = {key: getattr(self, key) for key in ("seed", "global_batch_size", "accumulate_grad_batches")}
            check_resumed(self._restored, self.info, ours=ours)
