from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest

from app.asyncio_utils import cancel_and_wait
from app.queue.queue import Queue
from app.settings import Settings

Connect = Callable[..., Queue]


@pytest.mark.parametrize("turns", range(30))
async def test_a_task_that_talks_to_redis_ends_whenever_it_is_cancelled(
    settings: Settings, turns: int, connect: Connect
) -> None:
    queue = connect(settings)

    async def talk() -> None:
        await queue.registry.announce("w", [], 5)
        await asyncio.Event().wait()

    task = asyncio.create_task(talk())
    for _ in range(turns):
        await asyncio.sleep(0)
    async with asyncio.timeout(5):
        await cancel_and_wait(task)


async def test_the_error_of_a_task_is_not_lost() -> None:
    async def fail() -> None:
        raise ValueError("said")

    task = asyncio.create_task(fail())
    await asyncio.sleep(0)
    with pytest.raises(ValueError, match="said"):
        await cancel_and_wait(task)
