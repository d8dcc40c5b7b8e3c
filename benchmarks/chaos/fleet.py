"""The processes: one Valkey, APIs and workers, all on loopback and on one data folder; no other is signalled."""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import signal
import socket
import sys
from collections.abc import AsyncIterator, Mapping, Sequence
from pathlib import Path

import httpx
from redis.asyncio import Redis
from redis.exceptions import RedisError

from app.queue import embedded
from app.queue.keys import Keys
from app.queue.queue import Queue
from app.settings import Settings

keys = Keys("nag")

__all__ = ["Fleet", "Part", "fleet"]

START_S = 180.0  # importing torch on a busy machine, several times at once
END_S = 180.0
LOOK_S = 0.005
STARTED = re.compile(r"worker_started worker=(\S+) pid=(\d+)")


class Part:
    """An API or a worker: a process that is started again under the same name, port and log."""

    def __init__(self, name: str, command: str, environment: Mapping[str, str], log: Path) -> None:
        self.name = name
        self.log = log
        self.down = False  # killed, and not yet serving again
        self._command = command
        self._environment = environment
        self._process: asyncio.subprocess.Process | None = None

    @property
    def url(self) -> str:
        """Of an API."""
        return f"http://127.0.0.1:{self._environment['NAG_PORT']}"

    async def start(self) -> None:
        others = {name: value for name, value in os.environ.items() if not name.startswith("NAG_")}
        with self.log.open("ab") as log:
            self._process = await asyncio.create_subprocess_exec(
                sys.executable, "-m", "app.cli", self._command, env=others | dict(self._environment),
                stdin=asyncio.subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True,
            )  # fmt: skip

    def signal(self, number: signal.Signals) -> None:
        if self._process is not None and self._process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                self._process.send_signal(number)

    async def ended(self) -> int:
        """Returns the exit code. Raises TimeoutError."""
        assert self._process is not None
        async with asyncio.timeout(END_S):
            return await self._process.wait()

    async def worker_name(self) -> str:
        """Returns the name under which this worker holds its leases."""
        async with asyncio.timeout(START_S):
            while True:
                assert self._process is not None
                names = {int(pid): name for name, pid in STARTED.findall(self.log.read_text(errors="replace"))}
                if self._process.pid in names:
                    return str(names[self._process.pid])
                await asyncio.sleep(LOOK_S)


class Fleet:
    """One service."""

    def __init__(self, settings: Settings, apis: Sequence[Part], workers: Sequence[Part], fsync: str) -> None:
        self.settings = settings
        self.apis = apis
        self.workers = workers
        self.redis = Redis.from_url(embedded.url(settings), decode_responses=True)
        self._queue = Queue.connect(settings)
        self._server: embedded.EmbeddedServer | None = None
        self._fsync = fsync

    @property
    def parts(self) -> list[Part]:
        return [*self.apis, *self.workers]

    async def start(self) -> None:
        """Everything, until each API answers and each worker is warm."""
        await self.start_server()
        await asyncio.gather(*(part.start() for part in self.parts))
        await asyncio.gather(*map(self.serving, self.parts))

    async def start_server(self) -> None:
        self._server = await asyncio.to_thread(embedded.start, self.settings)
        await self.redis.config_set("appendfsync", self._fsync)

    async def kill_server(self) -> None:
        server = self._server
        assert server is not None
        assert server.process is not None
        server.process.kill()
        await asyncio.to_thread(server.process.wait)

    async def serving(self, part: Part) -> None:
        """Waits until an API answers, or a worker has a model warm. Raises TimeoutError."""
        async with asyncio.timeout(START_S):
            if part in self.apis:
                async with httpx.AsyncClient(trust_env=False) as http:
                    while not await _answers(http, part.url):  # noqa: ASYNC110 - it is another process
                        await asyncio.sleep(10 * LOOK_S)
            else:
                name = await part.worker_name()
                while not await self._warm(name):  # noqa: ASYNC110 - and so is this
                    await asyncio.sleep(10 * LOOK_S)
        part.down = False

    async def _warm(self, name: str) -> bool:
        with contextlib.suppress(RedisError):
            return bool((await self._queue.registry.workers()).get(name))
        return False

    async def held(self) -> dict[str, set[str]]:
        """Returns the jobs leased now, by the name of their worker. Raises RedisError."""
        held: dict[str, set[str]] = {}
        for job in map(str, await self.redis.zrange(keys.LEASES, 0, -1)):
            held.setdefault(str(await self.redis.hget(keys.job(job), "worker")), set()).add(job)
        return held

    async def stop(self) -> list[str]:
        """End everything in order; what did not end in order, by its name."""
        found = []
        for parts in (self.apis, self.workers):
            for part in parts:
                part.signal(signal.SIGTERM)
            for part in parts:
                try:
                    code = await part.ended()
                except TimeoutError:
                    found.append(f"{part.name} does not end")
                else:
                    found += [f"{part.name} ended with code {code}"] if code else []
        return found

    async def clear(self) -> None:
        """Whatever happened before: nothing is left running."""
        for part in self.parts:
            part.signal(signal.SIGKILL)
        for part in self.parts:
            with contextlib.suppress(TimeoutError, AssertionError):
                await part.ended()
        await self._queue.close()
        await self.redis.aclose()
        if self._server is not None:
            await asyncio.to_thread(self._server.stop)


@contextlib.asynccontextmanager
async def fleet(
    folder: Path, settings: Mapping[str, str], workers: Sequence[Mapping[str, str]], fsync: str = "always"
) -> AsyncIterator[Fleet]:
    """A running service: two APIs, and a worker for each entry of `workers`, with its settings beside the shared ones.

    `fsync` is the server's appendfsync: with everysec, what was acknowledged while a sync was running may die with it.
    Raises TimeoutError where it does not come up.
    """
    # An API answers what it holds, however long that takes; a worker hands back what it cannot finish soon.
    patient = {"NAG_DRAIN_S": f"{END_S / 2:g}"}
    shared = {"NAG_DATA_DIR": str(folder / "data"), "NAG_DEVICE": "cpu", "OMP_NUM_THREADS": "1"} | dict(settings)
    apis = [
        Part(f"api-{i}", "api", shared | patient | {"NAG_PORT": str(_free_port())}, folder / f"api-{i}.log")
        for i in (1, 2)
    ]
    working = [
        Part(f"worker-{i}", "worker", shared | dict(own), folder / f"worker-{i}.log")
        for i, own in enumerate(workers, 1)
    ]
    one = Fleet(Settings(data_dir=folder / "data", redis_url=None), apis, working, fsync)
    try:
        await one.start()
        yield one
    finally:
        await one.clear()


async def _answers(http: httpx.AsyncClient, url: str) -> bool:
    with contextlib.suppress(httpx.TransportError):
        return (await http.get(f"{url}/healthz")).is_success
    return False


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])
