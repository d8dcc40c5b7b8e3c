"""The file of API keys: TOML with a table `[keys.<id>]` per key, so that people can read and edit it."""

from __future__ import annotations

import fcntl
import os
import tomllib
from pathlib import Path

from pydantic import ValidationError

from app.auth.api_key import ApiKey
from app.errors import CommandError

__all__ = ["KeysError", "add_key", "format_key", "read_keys"]


class KeysError(CommandError):
    """A file of keys that cannot be used, or a key that cannot be added to it."""


def read_keys(path: Path) -> tuple[ApiKey, ...]:
    """Reads the keys of a file. Raises KeysError, which quotes no value of the file."""
    try:
        document = tomllib.loads(path.read_text())
    except FileNotFoundError as exc:
        raise KeysError(f"{path}: there is no such file") from exc
    except OSError as exc:
        raise KeysError(f"{path}: cannot be read: {exc.strerror}") from exc
    except ValueError as exc:
        raise KeysError(f"{path}: not TOML: {exc}") from exc
    tables = document.pop("keys", {})
    if document or not isinstance(tables, dict):
        raise KeysError(f"{path}: holds tables [keys.<id>] and nothing else")
    return tuple(_parse_key(path, name, table) for name, table in tables.items())


def add_key(path: Path, key: ApiKey) -> None:
    """Appends the key to the file. A concurrent reader sees the file before or after. Raises KeysError."""
    # The lock is another file, because the file itself is replaced.
    with path.with_name(f"{path.name}.lock").open("a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        text = path.read_text() if path.exists() else ""
        if text and key.id in {known.id for known in read_keys(path)}:
            raise KeysError(f"{path}: has a key {key.id!r} already")
        temporary = path.with_name(f"{path.name}.tmp")
        temporary.unlink(missing_ok=True)
        with os.fdopen(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
            file.write(f"{text.rstrip()}\n\n{format_key(key)}".lstrip())
        temporary.replace(path)


def format_key(key: ApiKey) -> str:
    """Returns the key's table as the file holds it."""
    values = key.model_dump(mode="json", exclude={"id"}, exclude_none=True)
    lines = [f"{name} = {_toml(value)}" for name, value in values.items()]
    return "\n".join([f"[keys.{key.id}]", *lines, ""])


def _toml(value: str | int | list[str]) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, list):
        return f"[{', '.join(map(_toml, sorted(value)))}]"
    return str(value) if isinstance(value, int) else f'"{value}"'  # a Name, a hash or a scope: nothing to escape


def _parse_key(path: Path, name: str, table: object) -> ApiKey:
    if not isinstance(table, dict):
        raise KeysError(f"{path}: key {name!r}: must be a table")
    try:
        return ApiKey.model_validate({**table, "id": name})
    except ValidationError as exc:
        error = exc.errors(include_url=False, include_input=False)[0]
        where = ".".join(map(str, error["loc"]))
        raise KeysError(f"{path}: key {name!r}: {where}: {error['msg'].replace('Input should', 'must')}") from None
