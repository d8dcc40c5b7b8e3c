"""The API on a real socket, and a worker that denoises nothing: the queue and the artifacts are the product's own."""

from __future__ import annotations

import asyncio
import io
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field

import httpx
import uvicorn
from PIL import Image

from app.api.server import create_app, uvicorn_config
from app.artifacts import Artifacts, artifact_name
from app.formats import MEDIA_TYPES
from app.jobs import AppliedGuidance, Artifact, Generation, Job, JobError, Result, Timings
from app.queue.queue import Queue
from app.queue.snapshot import PendingJob
from app.settings import Settings
from tests.api.documented import undocumented
from tests.claiming import claim

TIMINGS = Timings(queue_ms=1.5, encode_ms=2.0, denoise_ms=30.0, decode_ms=4.25, total_ms=40.0)


SHUTDOWN_S = 1  # for requests in flight


@asynccontextmanager
async def serving(settings: Settings, stopping: Callable[[], bool] = lambda: False) -> AsyncIterator[httpx.AsyncClient]:
    """A client of an API that runs in this event loop, on a port of its own."""
    config = uvicorn_config(create_app(settings, stopping), settings, shutdown_s=SHUTDOWN_S)
    config.host, config.port = "127.0.0.1", 0
    config.load()
    server = uvicorn.Server(config)
    server.lifespan = config.lifespan_class(config)
    # asyncio makes the socket itself, since it leaves Nagle's algorithm on for one of `socket.create_server`: then
    # every response in two parts takes 40 ms longer.
    await server.startup()
    await server.on_tick(0)  # sets the headers of every answer
    base_url = f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
    try:
        async with httpx.AsyncClient(
            base_url=base_url,
            timeout=30,
            event_hooks={"response": [_hold]},
            trust_env=False,
            verify=False,  # to read the certificates takes longer than most tests
        ) as client:
            yield client
    finally:
        await _stop(server)


async def _stop(server: uvicorn.Server) -> None:
    """Does what `Server.serve` does at its end, but looks often: with its tenths of a second each test would wait."""
    for listening in server.servers:
        listening.close()
    state = server.server_state
    for connection in list(state.connections):
        connection.shutdown()
    with suppress(TimeoutError):
        async with asyncio.timeout(SHUTDOWN_S):
            while state.connections or state.tasks:  # noqa: ASYNC110 - uvicorn has no event for it
                await asyncio.sleep(0.002)
    for task in state.tasks:
        task.cancel()
    await server.lifespan.shutdown()


async def _hold(answer: httpx.Response) -> None:
    """Every answer in every test is one that openapi.json tells of."""
    wrong = undocumented(answer.request.method, answer.request.url.path, answer)
    assert wrong is None, wrong


@dataclass
class FakeWorker:
    """Finishes every job with plain pictures, or with a text that is said to be an MP4; a prompt of "fail" fails
    instead, and a strict one of "too long" as the request's own fault. Remembers what it was asked for.
    """

    queue: Queue
    artifacts: Artifacts
    name: str = "fake-1"
    seen: list[Generation] = field(default_factory=list)
    stopping: bool = False
    model: str = "shapes-flux"

    async def run(self) -> None:
        await self.queue.registry.announce(self.name, [self.model], 60)
        while not self.stopping:
            for job in await claim(self.queue, self.name, self.model, 8, 0.05):
                await self.finish(job)
        await self.queue.registry.retire(self.name)

    async def finish(self, job: Job) -> None:
        asked = job.request
        self.seen.append(asked)
        if asked.prompt == "fail":
            await self.queue.fail(self.name, job.id, JobError("out_of_memory", "the device ran out of memory"))
            return
        if asked.prompt == "too long" and asked.strict:
            await self.queue.fail(self.name, job.id, JobError("prompt_too_long", "prompt: the model reads 1 token"))
            return
        artifacts = []
        for index in range(asked.n):
            name, data = artifact_name(job.id, index, asked.output_format), picture(asked, index)
            await self.artifacts.save(name, data)
            small = artifact_name(job.id, index, "jpeg") if asked.num_frames is not None else None
            if small is not None:
                await self.artifacts.save(small, b"a JPEG")
            artifacts.append(Artifact(name, MEDIA_TYPES[asked.output_format], len(data), asked.seed + index, small))
        nag = asked.nag
        applied = (
            AppliedGuidance(applied=False, reason="not_requested")
            if nag is None
            else AppliedGuidance(
                True, None, nag.scale, nag.tau, nag.alpha, nag.end, nag.scale_decay, nag.start, nag.method
            )
        )
        await self.queue.finish(self.name, job.id, Result(tuple(artifacts), applied, 1, TIMINGS, ("a worker's word",)))


def picture(asked: Generation, index: int) -> bytes:
    """A file whose one colour tells the seeds apart."""
    if asked.num_frames is not None:
        return b"an MP4 " * 100
    file = io.BytesIO()
    color = ((asked.seed + index) % 256, 0, 0)
    Image.new("RGB", (asked.width, asked.height), color).save(file, asked.output_format)
    return file.getvalue()


@asynccontextmanager
async def working(queue: Queue, settings: Settings, model: str = "shapes-flux") -> AsyncIterator[FakeWorker]:
    worker = FakeWorker(queue, Artifacts.open(settings), model=model)
    task = asyncio.create_task(worker.run())
    try:
        while not await queue.registry.workers():  # noqa: ASYNC110 - in another process, as far as the product knows
            await asyncio.sleep(0.005)
        yield worker
    finally:
        worker.stopping = True
        await task


async def first_waiting(queue: Queue) -> PendingJob:
    """The job that waits, as soon as one does."""
    while not (shown := (await queue.snapshot("shapes-flux")).jobs):  # noqa: ASYNC110 - looking is what is tested
        await asyncio.sleep(0.01)
    return shown[0]
