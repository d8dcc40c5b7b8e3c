from __future__ import annotations

from collections.abc import Callable

import pytest

from app.queue.queue import Queue
from app.settings import Settings

Connect = Callable[..., Queue]


@pytest.fixture
def hasty(settings: Settings, connect: Connect) -> Queue:
    """A queue whose leases end at once and whose jobs may be lost twice."""
    return connect(settings.model_copy(update={"lease_s": 0.02, "max_attempts": 2}))
