"""A streamer in the manner of EIR's image-caption tutorial, re-created: what protocol 1.0 was served by before.

    python -m stream_sides.eir_streamer '{"folder": PARQUET, "cache": FOLDER, "port": 8123}'

Runs in the environment of `datasets`, which opens and shuffles the pictures as there. Eight threads take samples from
it one by one under a lock, and four times in five mirror, jitter, rotate and crop them, else resize; another thread
has 48 at a time encoded as JPEG of quality 90 and base64 by a pool of four, keeps the first 32 and throws the rest
away; up to eight such batches wait for FastAPI to send them as JSON, the picture in both of its fields. A request
waits for its batch inside the event loop.
"""

from __future__ import annotations

import base64
import io
import itertools
import json
import queue
import random
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import uvicorn
from datasets import load_dataset
from fastapi import FastAPI, WebSocket, WebSocketDisconnect
from PIL import Image
from torchvision import transforms

FETCHERS, ENCODERS = 8, 4
RAW, BATCHES = 1024, 8  # samples, batches that wait
BATCH, ENCODED = 32, 48
SIZE = (128, 128)


class Samples:
    """Augmented pictures and captions, fetched by several threads; and batches made of them."""

    def __init__(self, folder: Path, cache: Path) -> None:
        files = [str(path) for path in sorted(folder.glob("*.parquet"))]
        self._dataset = load_dataset("parquet", data_files=files, split="train", cache_dir=str(cache))
        self._source, self._lock = self._shuffled(), threading.Lock()
        self._raw: queue.Queue[tuple[int, Image.Image, str]] = queue.Queue(RAW)
        self.batches: queue.Queue[list[dict[str, Any]]] = queue.Queue(BATCHES)
        self._numbers = itertools.count()
        for work in [self._fetch] * FETCHERS + [self._encode]:
            threading.Thread(target=work, daemon=True).start()

    def _shuffled(self) -> Iterator[dict[str, Any]]:
        while True:
            yield from self._dataset.shuffle(seed=random.randrange(10_000))

    def _fetch(self) -> None:
        augment = transforms.Compose(
            [
                transforms.RandomHorizontalFlip(0.5),
                transforms.ColorJitter(brightness=0.1, contrast=0.1, saturation=0.1),
                transforms.RandomRotation(5),
                transforms.RandomResizedCrop(SIZE, scale=(0.95, 1.0), ratio=(0.95, 1.05)),
            ]
        )
        while True:
            if self._raw.qsize() >= 0.8 * RAW:
                time.sleep(0.1)
                continue
            with self._lock:
                sample = next(self._source)
            image = augment(sample["image"]) if random.random() < 0.8 else sample["image"].resize(SIZE)
            self._raw.put((next(self._numbers), image, sample["caption"]))

    def _encode(self) -> None:
        pool = ThreadPoolExecutor(ENCODERS)
        while True:
            if self.batches.full():
                time.sleep(0.1)
                continue
            made = [pool.submit(encoded, *self._raw.get()) for _ in range(ENCODED)]
            self.batches.put([future.result() for future in made[:BATCH]])


def encoded(number: int, image: Image.Image, caption: str) -> dict[str, Any]:
    """One SAMPLE of the protocol."""
    buffer = io.BytesIO()
    image.convert("RGB").save(buffer, format="JPEG", quality=90)
    text = base64.b64encode(buffer.getvalue()).decode()
    return {
        "inputs": {"image": text, "caption": caption},
        "target_labels": {"image": {"image": text}},
        "sample_id": f"sample_{number}",
    }


def app_of(samples: Samples) -> FastAPI:
    """The server: handshake and getData, all that the measurement asks for."""
    app = FastAPI()

    async def talk(socket: WebSocket) -> None:
        await socket.accept()
        try:
            while True:
                kind = (await socket.receive_json())["type"]
                if kind == "handshake":
                    await socket.send_json({"type": "handshake", "version": "1.0"})
                else:
                    await socket.send_json({"type": "data", "payload": samples.batches.get(timeout=30)})
        except WebSocketDisconnect:
            pass

    app.add_api_websocket_route("/ws", talk)
    return app


def main(folder: str, cache: str, port: int) -> None:
    uvicorn.run(app_of(Samples(Path(folder), Path(cache))), host="127.0.0.1", port=port, log_level="error")


if __name__ == "__main__":
    main(**json.loads(sys.argv[1]))
