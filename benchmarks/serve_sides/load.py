"""Clients of a server: as many as keep it busy, or arriving at a rate; times of every answer.

python -m serve_sides.load '{"url": ..., "seconds": 20, "clients": 32, "steps": [4, 8, 15, 50]}'
python -m serve_sides.load '{"url": ..., "seconds": 20, "rate": 3.5, "steps": [4, 8, 15, 50]}'
python -m serve_sides.load '{"url": ..., "answers": 4, "steps": [200]}'
"""

from __future__ import annotations

import asyncio
import json
import random
import statistics
import sys
import time

import httpx

WARM_UP_S = 4.0
SATURATED_S = 12.0  # all begin at once: until long requests end as often as they will, which takes two of their times
LIMIT_S = 300.0


async def ask(client: httpx.AsyncClient, url: str, steps: int, seed: int) -> None:
    body = {
        "prompt": f"Claude Monet / Sunrise {seed % 97} in Orange and Blue / Impressionism / seascape / 1872",
        "num_inference_steps": steps,
        "seed": seed,
        "response_format": "b64_json",
    }
    answer = await client.post(f"{url}/v1/images/generations", json=body)
    answer.raise_for_status()
    assert answer.json()["data"][0]["b64_json"]


async def closed(url: str, steps: list[int], *, clients: int, seconds: float, lead_s: float = SATURATED_S) -> dict:
    """Answers per second with `clients` that each ask again as soon as they are answered, and seconds of each by steps.

    Counted by their steps, as so many answers of the mean length: whoever answers short requests first gains nothing.
    """
    done: list[tuple[float, int, float]] = []  # when, of how many steps, after how long
    end = time.perf_counter() + lead_s + seconds

    async def one(number: int, client: httpx.AsyncClient) -> None:
        dice = random.Random(number)
        while True:
            chosen = dice.choice(steps)
            began = time.perf_counter()
            await ask(client, url, chosen, dice.randrange(2**31))
            done.append((now := time.perf_counter(), chosen, now - began))

    async with _client(clients) as client:
        asking = [asyncio.create_task(one(number, client)) for number in range(clients)]
        _, still = await asyncio.wait(asking, timeout=lead_s + seconds, return_when=asyncio.FIRST_EXCEPTION)
        for task in still:
            task.cancel()
        for task in set(asking) - still:
            task.result()
        await asyncio.gather(*still, return_exceptions=True)
    counted = [(chosen, took) for at, chosen, took in done if end - seconds <= at <= end]
    rate = sum(chosen for chosen, _ in counted) / statistics.mean(steps) / seconds
    taken = {str(each): sorted(took for chosen, took in counted if chosen == each) for each in steps}
    return {"rate": rate, "requests": len(counted), "taken": taken}


async def in_turn(url: str, steps: list[int], *, answers: int) -> dict:
    """Answers per second of one client that waits for each, after one to warm up."""
    async with _client(1) as client:
        await ask(client, url, steps[0], 0)
        began = time.perf_counter()
        for number in range(answers):
            await ask(client, url, steps[number % len(steps)], number)
    return {"rate": answers / (time.perf_counter() - began), "requests": answers}


async def opened(url: str, steps: list[int], *, rate: float, seconds: float) -> dict:
    """Latencies in seconds, by step count, of requests that arrive at random, `rate` a second."""
    dice = random.Random(0)
    taken: dict[int, list[float]] = {chosen: [] for chosen in steps}

    async def one(client: httpx.AsyncClient, chosen: int, seed: int, counts: bool) -> None:
        began = time.perf_counter()
        await ask(client, url, chosen, seed)
        if counts:
            taken[chosen].append(time.perf_counter() - began)

    async with _client(1000) as client, asyncio.TaskGroup() as group:
        start = now = time.perf_counter()
        while now < start + WARM_UP_S + seconds:
            counts = now >= start + WARM_UP_S
            group.create_task(one(client, dice.choice(steps), dice.randrange(2**31), counts))
            now += dice.expovariate(rate)
            await asyncio.sleep(max(0.0, now - time.perf_counter()))
    return {str(chosen): sorted(times) for chosen, times in taken.items()}


def _client(connections: int) -> httpx.AsyncClient:
    limits = httpx.Limits(max_connections=connections, max_keepalive_connections=connections)
    return httpx.AsyncClient(timeout=LIMIT_S, limits=limits, trust_env=False)


if __name__ == "__main__":
    given = json.loads(sys.argv[1])
    url, steps = given.pop("url"), given.pop("steps")
    way = closed if "clients" in given else in_turn if "answers" in given else opened
    print(json.dumps(asyncio.run(way(url, steps, **given))))
