"""Clients that ask for more than there is room for, and one that only asks whether the server lives.

    python -m serve_sides.storm '{"url": ..., "clients": 200, "seconds": 20}'
    python -m serve_sides.storm '{"url": ..., "clients": 32, "requests": 10000, "steps": 1}'
    python -m serve_sides.storm '{"url": ..., "health_s": 20}'

A client that is sent away comes back when it was told to. No two prompts are alike.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from collections import Counter
from itertools import count

import httpx
import numpy as np

PROBE_EVERY_S = 0.02


async def storm(url: str, *, clients: int, seconds: float = 600.0, requests: int | None = None, steps: int = 8) -> dict:
    """How many were answered with which status, and how many not at all (`lost`)."""
    statuses: Counter[str] = Counter()
    numbers, end = count(), time.perf_counter() + seconds

    async def one(client: httpx.AsyncClient) -> None:
        while time.perf_counter() < end and (requests is None or statuses["200"] < requests):
            body = {
                "prompt": f"Painter {next(numbers)} / Composition in Red and Blue / De Stijl / abstract / 1921",
                "num_inference_steps": steps,
            }
            try:
                answer = await client.post(f"{url}/v1/images/generations", json=body)
            except httpx.HTTPError:
                statuses["lost"] += 1
                continue
            if answer.status_code == 200 and not answer.json()["data"][0]["b64_json"]:
                statuses["lost"] += 1
            statuses[str(answer.status_code)] += 1
            if answer.status_code == 429:
                await asyncio.sleep(float(answer.headers["retry-after"]))

    limits = httpx.Limits(max_connections=clients, max_keepalive_connections=clients)
    async with httpx.AsyncClient(timeout=120, limits=limits, trust_env=False) as client:
        await asyncio.gather(*(one(client) for _ in range(clients)))
    return {"lost": 0, **statuses}


async def health(url: str, *, seconds: float) -> dict:
    """Milliseconds until /health answers, asked fifty times a second."""
    times: list[float] = []
    end = time.perf_counter() + seconds
    async with httpx.AsyncClient(timeout=30, trust_env=False) as client:
        while (began := time.perf_counter()) < end:
            (await client.get(f"{url}/health")).raise_for_status()
            times.append(1000 * (time.perf_counter() - began))
            await asyncio.sleep(max(0.0, PROBE_EVERY_S - times[-1] / 1000))
    return {"asked": len(times), "p50": float(np.median(times)), "p99": float(np.percentile(times, 99))}


if __name__ == "__main__":
    given = json.loads(sys.argv[1])
    url = given.pop("url")
    answer = health(url, seconds=given["health_s"]) if "health_s" in given else storm(url, **given)
    print(json.dumps(asyncio.run(answer)))
