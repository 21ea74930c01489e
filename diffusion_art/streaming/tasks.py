"""Tasks that belong together."""

import asyncio
from collections.abc import Coroutine
from typing import Any


async def until_one_ends(*works: Coroutine[Any, Any, Any]) -> list[Any]:
    """Run `works` at once until one of them ends, in whatever way, and cancel the others.

    What became of each, in order, errors and cancellations as values. Cancelled itself, it cancels them all and waits
    for their end.
    """
    tasks = [asyncio.create_task(work) for work in works]
    try:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in tasks:
            task.cancel()
        results = await asyncio.gather(*tasks, return_exceptions=True)
    return results
