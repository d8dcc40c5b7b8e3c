"""Each fault an operator should be woken for: how it is made and healed, and which alerts must fire and clear."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import subprocess
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx

from app.queue.queue import Queue
from benchmarks.chaos.fleet import Fleet, Part
from benchmarks.operations.load import BAD, Load

__all__ = ["FAULTS", "QUEUE_LIMIT", "Fault", "Scene", "small_disk"]

QUEUE_LIMIT = 40
LONG = {"prompt": "a shape", "n": 4, "num_inference_steps": 50}
DISK = "200m"


@dataclass(frozen=True)
class Scene:
    fleet: Fleet
    load: Load
    queue: Queue
    disk: Path | None  # the data folder, where it is a small file system of its own


@dataclass(frozen=True)
class Fault:
    """Within `made` the fault stands; left, it is healed."""

    what: str
    alerts: tuple[str, ...]
    made: Callable[[Scene], AbstractAsyncContextManager[None]]


@asynccontextmanager
async def _killed(scene: Scene, parts: Sequence[Part]) -> AsyncIterator[None]:
    for part in parts:
        part.signal(signal.SIGKILL)
        await part.ended()
    yield
    for part in parts:
        await part.start()
    await asyncio.gather(*map(scene.fleet.serving, parts))


@asynccontextmanager
async def workers_killed(scene: Scene) -> AsyncIterator[None]:
    killed = {await worker.worker_name() for worker in scene.fleet.workers}
    async with _killed(scene, scene.fleet.workers):
        yield
    while killed & (await scene.fleet.held()).keys():  # noqa: ASYNC110 - until those in their place have given it up
        await asyncio.sleep(0.2)
    await drop_dead(scene)


@asynccontextmanager
async def worker_frozen(scene: Scene) -> AsyncIterator[None]:
    """In the middle of its work, for longer than its lease; with one attempt allowed, what it held is given up."""
    frozen = scene.fleet.workers[0]
    name = await frozen.worker_name()
    while name not in await scene.fleet.held():
        await scene.load.http.post(f"{scene.load.url()}/v1/jobs", json=LONG)
        await asyncio.sleep(0.2)
    frozen.signal(signal.SIGSTOP)
    yield
    frozen.signal(signal.SIGCONT)
    await scene.fleet.serving(frozen)
    await drop_dead(scene)


async def drop_dead(scene: Scene) -> None:
    """Drops dead jobs, as an operator does who has looked at them."""
    await scene.queue.dead.drop([job.id for job in await scene.queue.dead.list()])


@asynccontextmanager
async def queue_filled(scene: Scene) -> AsyncIterator[None]:
    """Nobody works; clients go on asking."""
    for worker in scene.fleet.workers:
        worker.signal(signal.SIGSTOP)
    asking = asyncio.create_task(_flood(scene))
    try:
        yield
    finally:
        asking.cancel()
        for worker in scene.fleet.workers:
            worker.signal(signal.SIGCONT)
        await asyncio.wait([asking])


async def _flood(scene: Scene) -> None:
    while True:
        with contextlib.suppress(httpx.HTTPError):
            await scene.load.http.post(f"{scene.load.url()}/v1/jobs", json={"prompt": "a shape"})
        await asyncio.sleep(0.1)


@asynccontextmanager
async def errors_caused(scene: Scene) -> AsyncIterator[None]:
    """Jobs for a model that raises, two at once so that their joined call is halved."""

    async def ask() -> None:
        while True:
            for _ in range(2):
                with contextlib.suppress(httpx.HTTPError):
                    await scene.load.http.post(f"{scene.load.url()}/v1/jobs", json={"prompt": "a", "model": BAD})
            await asyncio.sleep(1.0)

    asking = asyncio.create_task(ask())
    try:
        yield
    finally:
        asking.cancel()


@asynccontextmanager
async def redis_killed(scene: Scene) -> AsyncIterator[None]:
    await scene.fleet.kill_server()
    yield
    await scene.fleet.start_server()


@asynccontextmanager
async def redis_full(scene: Scene) -> AsyncIterator[None]:
    """Nearly."""
    used = (await scene.fleet.redis.info("memory"))["used_memory"]
    await scene.fleet.redis.config_set("maxmemory", int(used / 0.9))
    yield
    await scene.fleet.redis.config_set("maxmemory", 0)


def apis_killed(scene: Scene) -> AbstractAsyncContextManager[None]:
    return _killed(scene, scene.fleet.apis)


@asynccontextmanager
async def disk_filled(scene: Scene) -> AsyncIterator[None]:
    assert scene.disk is not None
    filler = scene.disk / "filler"
    await asyncio.to_thread(filler.write_bytes, bytes(185 * 2**20))
    yield
    filler.unlink()


@contextlib.contextmanager
def small_disk(folder: Path) -> Iterator[Path | None]:
    """The folder as a small file system, where this user may mount one; else None."""
    folder.mkdir(parents=True)
    command = ["mount", "-t", "tmpfs", "-o", f"size={DISK}", "none", str(folder)]
    mounted = subprocess.run(command, capture_output=True, check=False).returncode == 0
    try:
        yield folder if mounted else None
    finally:
        if mounted:
            subprocess.run(["umount", str(folder)], check=True)  # noqa: S607 - where it is, is the system's matter


FAULTS: Mapping[str, Fault] = {
    fault.what: fault
    for fault in (
        Fault("workers killed", ("NagNoWorker",), workers_killed),
        Fault("a worker frozen", ("NagLeasesLost", "NagDeadLetters"), worker_frozen),
        Fault("queue filled", ("NagQueueNearlyFull", "NagRefusing", "NagQueueWaitLong"), queue_filled),
        Fault("errors caused", ("NagErrorRateHigh",), errors_caused),
        Fault("Redis killed", ("NagRedisUnreachable",), redis_killed),
        Fault("Redis nearly full", ("NagRedisMemoryHigh",), redis_full),
        Fault("APIs killed", ("NagApiDown",), apis_killed),
        Fault("disk filled", ("NagDiskFilling",), disk_filled),
    )
}
