"""Starts the processes of a service, restarts those that end, and stops them in order."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sys
from collections.abc import Coroutine, Sequence
from time import monotonic
from typing import Any

import httpx
from redis.exceptions import RedisError

from app.asyncio_utils import cancel_and_wait
from app.queue import embedded
from app.queue.queue import Queue
from app.settings import Settings
from app.supervisor.machine import arm_parent_death_signal
from app.unknown_settings import unknown_settings

__all__ = ["Supervisor"]

STOP_S = 20.0  # on top of settings.drain_s; after this a part is killed, and a worker's leases end by themselves
STEADY_S = 60.0  # a part that lived this long has earned a fresh count of restarts
MOST_RESTARTS = 5
FIRST_DELAY_S = 0.5  # before the first restart; doubled with each
LOOK_S = 0.25  # between two polls

#: The parts, by their name as a command of the console script, and the signal each gets when this process is killed:
#: the API holds nothing and must free its port at once, the worker hands its jobs back.
PARTS = {"api": signal.SIGKILL, "worker": signal.SIGTERM}


class PartError(Exception):
    """A part cannot be kept running; the message is one line."""


class Supervisor:
    """Starts the parts of a service on this machine, and restarts those that end.

    Args:
        settings: of all parts.
        insecure: whether the API serves everybody.
        device_sets: the devices of each worker, as `app.devices.device_sets` returns them.

    """

    def __init__(self, settings: Settings, insecure: bool, device_sets: Sequence[tuple[int, ...]]) -> None:
        self._settings = settings
        self._device_sets = device_sets
        self._insecure = insecure
        self._stopping = asyncio.Event()
        self._hurrying = asyncio.Event()
        self._server: embedded.EmbeddedServer | None = None

    async def run(self) -> int:
        for stop_signal in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            asyncio.get_running_loop().add_signal_handler(stop_signal, self._stop)
        _say("starting")
        if self._settings.redis_url is None:
            await self._start_server()
        telling = asyncio.create_task(self._tell_when_ready())
        parts = [self._keep("api", self._settings)]
        for number, devices in enumerate(self._device_sets):
            port = self._settings.metrics_port and self._settings.metrics_port + number
            changes = {"devices": devices or None, "metrics_port": port}
            parts.append(self._keep("worker", self._settings.model_copy(update=changes)))
        try:
            await self._together([*parts, self._keep_server()] if self._server is not None else parts)
        except PartError as error:
            _say(str(error))
            return 1
        finally:
            await cancel_and_wait(telling)
            if self._server is not None:
                await asyncio.to_thread(self._server.stop)
            _say("stopped")
        return 0

    def _stop(self) -> None:
        if self._stopping.is_set():
            self._hurrying.set()
        self._stopping.set()

    async def _together(self, parts: list[Coroutine[Any, Any, None]]) -> None:
        """Waits until every part has ended: after a signal to stop, or after the first failure, which is raised."""
        tasks = [asyncio.create_task(part) for part in parts]
        await asyncio.wait(tasks, return_when=asyncio.FIRST_EXCEPTION)
        self._stopping.set()
        await asyncio.wait(tasks)
        for task in tasks:
            task.result()

    async def _keep(self, name: str, settings: Settings) -> None:
        """Runs a part as a process, and starts it again if it dies."""
        restarts = _Restarts(name)
        options = ["--insecure"] if name == "api" and self._insecure else []
        unknown = unknown_settings(os.environ)  # this process has warned of them
        environment = {variable: value for variable, value in os.environ.items() if variable not in unknown}
        while not self._stopping.is_set():
            begun_s = monotonic()
            process = await asyncio.create_subprocess_exec(
                sys.executable, "-m", "app.cli", name, *options,
                env=environment | settings.as_environment(), stdin=asyncio.subprocess.DEVNULL,
                start_new_session=True, preexec_fn=arm_parent_death_signal(PARTS[name]),
            )  # fmt: skip
            ended = asyncio.create_task(process.wait())
            if await self._stopped_before(ended):
                await self._end(process, ended)
                if not ended.done():
                    _say(f"{name} does not end: killed")
                    process.kill()
                await ended
                return
            await self._pause(restarts.delay_s(f"ended with code {await ended}", monotonic() - begun_s))

    async def _end(self, process: asyncio.subprocess.Process, ended: asyncio.Task[int]) -> None:
        """Asks the process to end and waits for it; after a second signal, asks again and again."""
        _ask_to_end(process)
        hurried = asyncio.create_task(self._hurrying.wait())
        timeout_s = self._settings.drain_s + STOP_S
        await asyncio.wait({ended, hurried}, timeout=timeout_s, return_when=asyncio.FIRST_COMPLETED)
        hurried.cancel()
        killed_s = monotonic() + timeout_s
        while hurried.done() and not ended.done() and monotonic() < killed_s:
            # Again and again: of two signals that come before a busy process looks, it sees one.
            _ask_to_end(process)
            await asyncio.wait({ended}, timeout=LOOK_S)

    async def _keep_server(self) -> None:
        """Runs the embedded server, and starts it again if it dies; its append-only file restores the jobs."""
        restarts = _Restarts("valkey")
        begun_s = monotonic()
        while not self._stopping.is_set():
            await self._pause(LOOK_S)
            if self._server is None or self._server.is_alive() or self._stopping.is_set():
                continue
            await self._pause(restarts.delay_s("is gone", monotonic() - begun_s))
            begun_s = monotonic()
            try:
                await self._start_server()
            except embedded.EmbeddedError as error:
                raise PartError(str(error)) from error

    async def _start_server(self) -> None:
        self._server = await asyncio.to_thread(embedded.start, self._settings)
        _say(f"valkey {'adopted' if self._server.is_adopted else 'started'}")

    async def _tell_when_ready(self) -> None:
        """Prints a line when the worker takes jobs, and one when the API says that it is ready to serve."""
        queue = Queue.connect(self._settings)
        try:
            while (models := await _loaded(queue)) is None:  # noqa: ASYNC110 - the worker is another process
                await asyncio.sleep(LOOK_S)
            _say(f"model loaded: {', '.join(models) or 'none'}")
        finally:
            await queue.close()
        url = self._settings.url
        async with httpx.AsyncClient(trust_env=False) as http:  # a proxy has no business on this machine
            while not await _ready(http, url):  # noqa: ASYNC110 - and so is the API
                await asyncio.sleep(LOOK_S)
        _say(f"ready at {url}")

    async def _stopped_before(self, task: asyncio.Task[int]) -> bool:
        stopped = asyncio.create_task(self._stopping.wait())
        await asyncio.wait({task, stopped}, return_when=asyncio.FIRST_COMPLETED)
        stopped.cancel()
        return self._stopping.is_set()

    async def _pause(self, seconds: float) -> None:
        """Sleep, unless told to stop."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._stopping.wait()


class _Restarts:
    """Counts the restarts of a part: how long the next one waits, and when there were too many."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._count = 0

    def delay_s(self, how: str, lived_s: float) -> float:
        """Prints that the part ended. Raises PartError after MOST_RESTARTS in a row, none of which ran for STEADY_S."""
        self._count = 1 if lived_s > STEADY_S else self._count + 1
        if self._count > MOST_RESTARTS:
            raise PartError(f"{self._name} {how}, {self._count} times in a row: giving up")
        delay_s = FIRST_DELAY_S * 2.0 ** (self._count - 1)
        _say(f"{self._name} {how}; starting it again in {delay_s:g} s")
        return delay_s


def _ask_to_end(process: asyncio.subprocess.Process) -> None:
    with contextlib.suppress(ProcessLookupError):
        process.terminate()


async def _loaded(queue: Queue) -> list[str] | None:
    """Returns the models that workers have loaded; None while no worker takes jobs."""
    with contextlib.suppress(RedisError):
        if await queue.registry.served_models():
            return sorted({model for models in (await queue.registry.workers()).values() for model in models})
    return None


async def _ready(http: httpx.AsyncClient, url: str) -> bool:
    with contextlib.suppress(httpx.TransportError):
        return (await http.get(f"{url}/readyz")).status_code == httpx.codes.OK
    return False


def _say(state: str) -> None:
    print(f"nag-server: {state}", flush=True)
