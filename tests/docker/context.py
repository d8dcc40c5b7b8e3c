"""What .dockerignore lets a builder see."""

from __future__ import annotations

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
    found = (
        str(path.relative_to(root))
        for each in root.iterdir()
        if each.name not in (".git", ".venv")
        for path in _under(each)
    )
    return sorted(path for path in found if _seen(path, patterns))


def _under(path: Path) -> list[Path]:
    return [each for each in path.rglob("*") if each.is_file()] if path.is_dir() else [path]


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
