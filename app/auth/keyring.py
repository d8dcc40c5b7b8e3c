"""The API keys that the service accepts; their file is read again whenever it changes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from hmac import compare_digest

from app.auth.api_key import ApiKey, digest
from app.auth.keys_file import KeysError, read_keys
from app.logs import Log
from app.settings import Settings

__all__ = ["Keyring"]

_log = Log("access")


class Keyring:
    """The keys of NAG_API_KEYS and of NAG_API_KEYS_FILE. Raises KeysError if the file cannot be used at the start.

    A file that becomes unusable later leaves the keys as they were, and is reported in the log.
    """

    def __init__(self, settings: Settings) -> None:
        self.is_required = settings.asks_for_keys
        self._setting = settings.api_keys
        self._path = settings.api_keys_file
        self._stamp = self._file_stamp()
        self._keys = self._read()

    def find(self, secret: str) -> ApiKey | None:
        """Returns the key with this secret. The time it takes does not depend on which key it is, or on a match."""
        self._refresh()
        sha256 = digest(secret)
        match = None
        for key in self._keys:
            if compare_digest(key.sha256, sha256):
                match = key
        return match

    def _refresh(self) -> None:
        stamp = self._file_stamp()
        if stamp == self._stamp:
            return
        self._stamp = stamp
        try:
            self._keys = self._read()
            _log.info("keys_read", count=len(self._keys))
        except KeysError as exc:
            _log.error("keys_not_read", message=exc, kept=len(self._keys))

    def _file_stamp(self) -> tuple[int, int, int] | None:
        """Differs after the file was written or replaced."""
        try:
            stat = None if self._path is None else self._path.stat()
        except OSError:
            return None
        return None if stat is None else (stat.st_mtime_ns, stat.st_size, stat.st_ino)

    def _read(self) -> tuple[ApiKey, ...]:
        keys = self._setting + (() if self._path is None else read_keys(self._path))
        for field in ("id", "sha256"):
            if (value := _duplicate(getattr(key, field) for key in keys)) is not None:
                raise KeysError(f"two API keys have the same {field}" + (f": {value}" if field == "id" else ""))
        return keys


def _duplicate(values: Iterable[str]) -> str | None:
    return next((value for value, count in Counter(values).items() if count > 1), None)
