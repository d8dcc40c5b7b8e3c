"""An API process that is told to end while a request waits for its job."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import httpx
import pytest

from app.artifacts import Artifacts
from app.queue.queue import Queue
from app.settings import Settings
from tests.api.support import FakeWorker, first_waiting
from tests.claiming import claim
from tests.limits import HANG_S


@asynccontextmanager
async def told_to_end(settings: Settings, queue: Queue, drain_s: float) -> AsyncIterator[Any]:
    """An API that holds one request for a picture and was told to end: the process, and the answer to come."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    environment = os.environ | {
        "NAG_DATA_DIR": str(settings.data_dir),
        "NAG_REDIS_URL": str(settings.redis_url),
        "NAG_PORT": str(port),
        "NAG_DRAIN_S": str(drain_s),
    }
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "app.cli", "api", env=environment, stdout=asyncio.subprocess.PIPE
    )
    try:
        assert process.stdout is not None
        await process.stdout.readline()
        await queue.registry.announce("fake-1", ["shapes-flux"], 60)
        async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", timeout=HANG_S, trust_env=False) as client:
            asking = asyncio.create_task(client.post("/v1/images/generations", json={"prompt": "a shape"}))
            await first_waiting(queue)
            process.send_signal(signal.SIGTERM)
            async with asyncio.timeout(HANG_S):
                while not await _refused(port):  # noqa: ASYNC110 - it is another process
                    await asyncio.sleep(0.01)
            yield process, asking
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()


async def _refused(port: int) -> bool:
    try:
        _, writer = await asyncio.open_connection("127.0.0.1", port)
    except ConnectionRefusedError:
        return True
    except ConnectionResetError:  # it was waiting for the server, which closed its listener
        return False
    writer.close()
    return False


async def test_what_it_holds_is_answered(settings: Settings, queue: Queue) -> None:
    async with told_to_end(settings, queue, drain_s=60) as (process, asking):
        [job] = await claim(queue, "fake-1", "shapes-flux", 8, 0)
        await asyncio.sleep(1)  # longer than it takes to look at whether the server is to end
        assert not asking.done()
        await FakeWorker(queue, Artifacts.open(settings)).finish(job)
        answer = await asking
        assert (answer.status_code, answer.json()["job"]) == (200, job.id)
        assert await process.wait() == 0


@pytest.mark.slow
@pytest.mark.parametrize(("drain_s", "again"), [(0.0, False), (60.0, True)])
async def test_it_holds_nothing_for_longer_than_it_may(
    settings: Settings, queue: Queue, drain_s: float, again: bool
) -> None:
    async with told_to_end(settings, queue, drain_s) as (process, asking):
        if again:
            process.send_signal(signal.SIGTERM)
        answer = await asking
        assert (answer.status_code, answer.json()["error"]["code"]) == (503, "timeout")
        assert await process.wait() == 0
