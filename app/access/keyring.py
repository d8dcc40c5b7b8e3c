"""The keys that open the API, read again whenever their file changes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from hmac import compare_digest

from app.access import file
from app.access.errors import KeysError
from app.access.key import ApiKey, digest
from app.logs import Log
from app.settings import Settings

__all__ = ["Keyring"]

_log = Log("access")


class Keyring:
    """The keys of NAG_API_KEYS and of NAG_API_KEYS_FILE. Raises KeysError for a file that cannot be used at the start;
    one that becomes so later leaves the keys as they were, and is told in the log.
    """

    def __init__(self, settings: Settings) -> None:
        self.asks = settings.asks_for_keys
        self._said = settings.api_keys
        self._path = settings.api_keys_file
        self._stamp = self._look()
        self._keys = self._read()

    def find(self, secret: str) -> ApiKey | None:
        """The key with this secret. Takes as long whichever it is, and whether there is one."""
        self._refresh()
        asked = digest(secret)
        found = None
        for key in self._keys:
            if compare_digest(key.sha256, asked):
                found = key
        return found

    def _refresh(self) -> None:
        stamp = self._look()
        if stamp == self._stamp:
            return
        self._stamp = stamp
        try:
            self._keys = self._read()
            _log.info("keys_read", count=len(self._keys))
        except KeysError as exc:
            _log.error("keys_not_read", message=exc, kept=len(self._keys))

    def _look(self) -> tuple[int, int, int] | None:
        """Differs when the file was written or replaced."""
        try:
            stat = None if self._path is None else self._path.stat()
        except OSError:
            return None
        return None if stat is None else (stat.st_mtime_ns, stat.st_size, stat.st_ino)

    def _read(self) -> tuple[ApiKey, ...]:
        keys = self._said + (() if self._path is None else file.read(self._path))
        for what in ("id", "sha256"):
            if (twice := _twice(getattr(each, what) for each in keys)) is not None:
                raise KeysError(f"two API keys have the same {what}" + (f": {twice}" if what == "id" else ""))
        return keys


def _twice(values: Iterable[str]) -> str | None:
    return next((each for each, count in Counter(values).items() if count > 1), None)
