"""A stored file on this machine's disk, read on demand."""

from __future__ import annotations

import io
import os
from typing import Any

__all__ = ["DiskFile"]


class DiskFile(io.RawIOBase):
    """A file that is read from the disk piece by piece, and closed once nothing refers to it.

    A file of `open` would warn if it were not closed. A request's input passes through many functions, and any of them
    may be the last user.
    """

    def __init__(self, descriptor: int) -> None:
        self._descriptor, self._at = descriptor, 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        count = os.preadv(self._descriptor, [buffer], self._at)
        self._at += count
        return count

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        base = {os.SEEK_SET: 0, os.SEEK_CUR: self._at, os.SEEK_END: os.fstat(self._descriptor).st_size}[whence]
        self._at = base + offset
        return self._at

    def tell(self) -> int:
        return self._at

    def close(self) -> None:
        if not self.closed:
            super().close()
            os.close(self._descriptor)
