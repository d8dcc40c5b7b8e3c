"""What .dockerignore lets a builder see."""

from __future__ import annotations

import os
import re
from pathlib import Path

ROOT = Path(__file__).parents[2]


def files(root: Path = ROOT) -> list[str]:
    """The paths in the build context, from its root. The last pattern that meets a file or its folder decides."""
    patterns = [
        (line.startswith("!"), _pattern(line.removeprefix("!")))
        for line in (root / ".dockerignore").read_text().splitlines()
        if line and not line.startswith("#")
    ]
    shown: list[str] = []
    for folder, folders, names in os.walk(root):
        prefix = "" if Path(folder) == root else f"{Path(folder).relative_to(root)}/"
        shown += [path for name in names if _seen(path := prefix + name, patterns)]
        # Every pattern that lets in names a folder of the root, so nothing is let in beneath a folder that is not.
        folders[:] = [name for name in folders if _seen(prefix + name, patterns)]
    return sorted(shown)


def _seen(path: str, patterns: list[tuple[bool, re.Pattern[str]]]) -> bool:
    parts = path.split("/")
    prefixes = ["/".join(parts[: n + 1]) for n in range(len(parts))]
    seen = True
    for lets_in, pattern in patterns:
        if any(pattern.fullmatch(prefix) for prefix in prefixes):
            seen = lets_in
    return seen


def _pattern(text: str) -> re.Pattern[str]:
    escaped = re.escape(text).replace(r"\*\*/", "(?:.*/)?").replace(r"\*", "[^/]*")
    return re.compile(escaped)
