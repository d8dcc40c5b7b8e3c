"""Ending a task that talks to Redis."""

from __future__ import annotations

import asyncio
from typing import Any

__all__ = ["end"]

AGAIN_S = 0.1


async def end(task: asyncio.Task[Any]) -> None:
    """Cancel a task until it has ended; raises what it raised other than that.

    Once may not be enough: before Python 3.12 `asyncio.wait_for`, with which redis-py sends, loses a cancellation that
    arrives as the sending completes.
    """
    while not task.done():
        task.cancel()
        await asyncio.wait([task], timeout=AGAIN_S)
    if not task.cancelled():
        task.result()
