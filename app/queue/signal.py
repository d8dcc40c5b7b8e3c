"""An asyncio event that can be waited for with a limit."""

from __future__ import annotations

import asyncio

__all__ = ["Signal"]


class Signal(asyncio.Event):
    async def within(self, timeout_s: float) -> bool:
        """Whether it was set within this time; clears it."""
        try:
            async with asyncio.timeout(max(0.0, timeout_s)):
                await self.wait()
        except TimeoutError:
            return False
        self.clear()
        return True
