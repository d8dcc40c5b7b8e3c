"""The page's files as they are served: read once, named by what they hold."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import cache
from html import escape
from pathlib import Path

__all__ = ["FOLDER", "INDEX", "File", "Page", "load"]

FOLDER = Path(__file__).parent / "page"
INDEX = "index.html"
#: Stands in the page for the folder of its files, whose name changes with any of them.
FOLDER_MARK = "{{files}}"
PRELOAD_MARK = "{{preload}}"
MEDIA_TYPES = {
    ".html": "text/html; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
    "": "text/plain; charset=utf-8",  # licences
}


@dataclass(frozen=True)
class File:
    data: bytes
    media_type: str
    etag: str


@dataclass(frozen=True)
class Page:
    """`files` by their path; `version` is one digest of them all."""

    version: str
    files: dict[str, File]


@cache
def load() -> Page:
    data = {path.relative_to(FOLDER).as_posix(): path.read_bytes() for path in _find()}
    version = _digest("\n".join(f"{name} {_digest(content)}" for name, content in sorted(data.items())).encode())
    data[INDEX] = _index(data[INDEX].decode(), version, sorted(data)).encode()
    return Page(version, {name: _file(name, content) for name, content in data.items()})


def _find() -> list[Path]:
    return [path for path in FOLDER.rglob("*") if path.is_file() and path.suffix in MEDIA_TYPES]


def _index(text: str, version: str, names: list[str]) -> str:
    folder = f"playground/{version}"
    # All at once: modules that import one another would be fetched one level after the other.
    modules = [f'<link rel="modulepreload" href="{folder}/{escape(name)}">' for name in names if name.endswith(".js")]
    return text.replace(FOLDER_MARK, folder).replace(PRELOAD_MARK, "\n    ".join(modules))


def _file(name: str, data: bytes) -> File:
    return File(data, MEDIA_TYPES[Path(name).suffix], f'"{_digest(data)}"')


def _digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()[:16]
