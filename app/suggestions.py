"""Suggests a known name for an unknown one."""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches

__all__ = ["did_you_mean"]


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """Names the closest of the known names, as the end of a sentence; an empty text if none is close."""
    closest = get_close_matches(name, list(known), n=1)
    return f"; did you mean {closest[0]}?" if closest else ""
