"""What the stores raise, as one error."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from obstore.exceptions import BaseError

from app.errors import CommandError

__all__ = ["ArtifactsError", "translated"]


class ArtifactsError(CommandError):
    """The store could not do what it was asked. The message is one line and may name the bucket, never a key."""


@contextmanager
def translated() -> Iterator[None]:
    """Whatever a store raises as ArtifactsError, but for FileNotFoundError."""
    try:
        yield
    except FileNotFoundError:
        raise
    except (BaseError, OSError) as exc:
        raise ArtifactsError(str(exc).partition("\n")[0]) from exc
