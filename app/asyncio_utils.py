"""Two things that asyncio lacks: a wait with a limit that clears the event, and a cancellation that is certain."""

from __future__ import annotations

import asyncio
from typing import Any

__all__ = ["Signal", "cancel_and_wait"]

CANCEL_AGAIN_S = 0.1


class Signal(asyncio.Event):
    """An event that one task waits for again and again."""

    async def within(self, timeout_s: float) -> bool:
        """Waits for the signal at most this long and clears it; returns whether it was set."""
        try:
            async with asyncio.timeout(max(0.0, timeout_s)):
                await self.wait()
        except TimeoutError:
            return False
        self.clear()
        return True


async def cancel_and_wait(task: asyncio.Task[Any]) -> None:
    """Cancels a task until it has ended; raises its exception, if it ended by another than the cancellation.

    Once may not be enough: before Python 3.12 `asyncio.wait_for`, with which redis-py sends, loses a cancellation that
    arrives as the sending completes.
    """
    while not task.done():
        task.cancel()
        await asyncio.wait([task], timeout=CANCEL_AGAIN_S)
    if not task.cancelled():
        task.result()
