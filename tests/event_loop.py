"""The event loop of asynchronous tests: fails a test that leaves connections open."""

from __future__ import annotations

import asyncio
import selectors

__all__ = ["CheckedEventLoop"]


class CheckedEventLoop(asyncio.SelectorEventLoop):
    """Raises an error on `close` if sockets are still registered.

    Without it, their ResourceWarnings fail whichever test runs when they are garbage-collected.
    """

    def __init__(self) -> None:
        self._sockets = selectors.DefaultSelector()
        super().__init__(self._sockets)
        self._own = set(self._sockets.get_map())  # the pipe by which other threads wake the loop

    def close(self) -> None:
        if self.is_closed():
            return
        left = [str(key.data) for fd, key in self._sockets.get_map().items() if fd not in self._own]
        super().close()
        assert not left, f"the test left connections open: {left}"
