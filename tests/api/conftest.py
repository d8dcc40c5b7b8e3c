from __future__ import annotations

from collections.abc import AsyncIterator

import httpx
import pytest

from app.queue.queue import Queue
from app.settings import Settings
from tests.api.support import FakeWorker, serving, working


@pytest.fixture
async def api(settings: Settings) -> AsyncIterator[httpx.AsyncClient]:
    async with serving(settings) as client:
        yield client


@pytest.fixture
async def worker(queue: Queue, settings: Settings) -> AsyncIterator[FakeWorker]:
    async with working(queue, settings) as worker:
        yield worker
