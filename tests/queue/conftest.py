from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from app.queue.queue import Queue
from app.settings import Settings


@pytest.fixture
async def hasty(settings: Settings) -> AsyncIterator[Queue]:
    """A queue whose leases end at once and whose jobs may be lost twice."""
    queue = Queue.connect(settings.model_copy(update={"lease_s": 0.02, "max_attempts": 2}))
    yield queue
    await queue.close()
