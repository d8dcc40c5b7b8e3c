"""`nag-server up`: the whole service on one machine. It holds no job itself: it starts the parts and keeps them alive.

The embedded Valkey (where no NAG_REDIS_URL is given), then the API and one worker, as processes of their own. Ctrl-C
reaches this process alone, which stops them in the order that loses nothing: the worker hands its jobs back, then the
server writes them to disk. A second Ctrl-C is passed on: nothing is waited for any longer. Killed outright, the API
and the worker end with it (on Linux); the server stays, and the next `up` adopts it.
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import errno
import fcntl
import json
import os
import signal
import socket
import sys
from collections.abc import Callable, Coroutine, Iterator
from pathlib import Path
from time import monotonic
from typing import Any

import httpx
from redis.exceptions import RedisError

from app import exposure, logs
from app.access.keyring import Keyring
from app.catalog import Catalog
from app.queue import embedded
from app.queue.cancel import end
from app.queue.queue import Queue
from app.settings import Settings

__all__ = ["GaveUp", "up"]

STOP_S = 20.0  # on top of settings.drain_s; after this a part is killed, and a worker's leases end by themselves
STEADY_S = 60.0  # a part that lived this long has earned a fresh count of restarts
MOST_RESTARTS = 5
FIRST_DELAY_S = 0.5  # before the first restart; doubled with each
LOOK_S = 0.25  # between two looks at what tells no one of its changes
PR_SET_PDEATHSIG = 1

#: The parts, by their name as a command of the console script, and the signal each gets when this process is killed:
#: the API holds nothing and must free its port at once, the worker hands its jobs back.
PARTS = {"api": signal.SIGKILL, "worker": signal.SIGTERM}


class GaveUp(Exception):
    """A part that dies again and again; the message is one line."""


def up(settings: Settings, *, insecure: bool = False) -> int:
    """Run until SIGINT, SIGTERM or SIGHUP; the exit code: 0, or 1 where a part would not stay alive.

    Raises EmbeddedError where another `up` has the data folder or no server can be had, OSError for a port taken,
    CatalogError, KeysError, and Exposed where `insecure` does not allow everybody in.
    """
    if not insecure:
        exposure.check(settings)
    logs.configure(settings.log_level)
    Catalog.load(settings)  # a mistake in it is told here, once, not by each part again and again
    Keyring(settings)
    with _sole_user_of(settings.data_folder):
        return asyncio.run(_Service(settings.model_copy(update={"port": _free_port(settings)}), insecure).run())


class _Service:
    def __init__(self, settings: Settings, insecure: bool) -> None:
        self._settings = settings
        self._insecure = insecure
        self._stopping = asyncio.Event()
        self._hurrying = asyncio.Event()
        self._server: embedded.Embedded | None = None

    async def run(self) -> int:
        for each in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            asyncio.get_running_loop().add_signal_handler(each, self._stop)
        _say("starting")
        if self._settings.redis_url is None:
            await self._start_server()
        telling = asyncio.create_task(self._tell_when_ready())
        parts = [self._keep(name) for name in PARTS]
        try:
            await self._together([*parts, self._keep_server()] if self._server is not None else parts)
        except GaveUp as error:
            _say(str(error))
            return 1
        finally:
            await end(telling)
            if self._server is not None:
                await asyncio.to_thread(self._server.stop)
            _say("stopped")
        return 0

    def _stop(self) -> None:
        if self._stopping.is_set():
            self._hurrying.set()
        self._stopping.set()

    async def _together(self, parts: list[Coroutine[Any, Any, None]]) -> None:
        """Until every part has ended: when told to stop, or after the first failure, which is raised."""
        tasks = [asyncio.create_task(each) for each in parts]
        await asyncio.wait(tasks, return_when=asyncio.FIRST_EXCEPTION)
        self._stopping.set()
        await asyncio.wait(tasks)
        for task in tasks:
            task.result()

    async def _keep(self, name: str) -> None:
        """A part as a process, started again when it dies."""
        restarts = _Restarts(name)
        options = ["--insecure"] if name == "api" and self._insecure else []
        while not self._stopping.is_set():
            begun_s = monotonic()
            process = await asyncio.create_subprocess_exec(
                sys.executable, "-m", "app.cli", name, *options,
                env=os.environ | _environment(self._settings), stdin=asyncio.subprocess.DEVNULL,
                start_new_session=True, preexec_fn=_dying_with_parent(PARTS[name]),
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
        """Ask the process to end, twice where this one was told twice, and wait as long as it may take."""
        hurried = asyncio.create_task(self._hurrying.wait())
        for also in ({hurried}, set[asyncio.Task[Any]]()):
            with contextlib.suppress(ProcessLookupError):
                process.terminate()
            timeout_s = self._settings.drain_s + STOP_S
            await asyncio.wait({ended, *also}, timeout=timeout_s, return_when=asyncio.FIRST_COMPLETED)
            if ended.done() or not hurried.done():
                break
        hurried.cancel()

    async def _keep_server(self) -> None:
        """The embedded server, started again when it dies; its append-only file brings the jobs back."""
        restarts = _Restarts("valkey")
        begun_s = monotonic()
        while not self._stopping.is_set():
            await self._pause(LOOK_S)
            if self._server is None or self._server.alive() or self._stopping.is_set():
                continue
            await self._pause(restarts.delay_s("is gone", monotonic() - begun_s))
            begun_s = monotonic()
            try:
                await self._start_server()
            except embedded.EmbeddedError as error:
                raise GaveUp(str(error)) from error

    async def _start_server(self) -> None:
        self._server = await asyncio.to_thread(embedded.start, self._settings)
        _say(f"valkey {'adopted' if self._server.adopted else 'started'}")

    async def _tell_when_ready(self) -> None:
        """One line when the worker is warm, and one when the API says that it is ready to serve."""
        queue = Queue.connect(self._settings)
        try:
            while not (models := await _warm(queue)):  # noqa: ASYNC110 - the worker is another process
                await asyncio.sleep(LOOK_S)
            _say(f"model loaded: {', '.join(models)}")
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
    """How long a part that died has to wait, and when it has died too often."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._count = 0

    def delay_s(self, how: str, lived_s: float) -> float:
        """Tells of the death. Raises GaveUp after MOST_RESTARTS in a row, none of them steady."""
        self._count = 1 if lived_s > STEADY_S else self._count + 1
        if self._count > MOST_RESTARTS:
            raise GaveUp(f"{self._name} {how}, {self._count} times in a row: giving up")
        delay_s = FIRST_DELAY_S * 2.0 ** (self._count - 1)
        _say(f"{self._name} {how}; starting it again in {delay_s:g} s")
        return delay_s


async def _warm(queue: Queue) -> list[str]:
    with contextlib.suppress(RedisError):
        return sorted({model for models in (await queue.registry.workers()).values() for model in models})
    return []


async def _ready(http: httpx.AsyncClient, url: str) -> bool:
    with contextlib.suppress(httpx.TransportError):
        return (await http.get(f"{url}/readyz")).status_code == httpx.codes.OK
    return False


def _environment(settings: Settings) -> dict[str, str]:
    """The settings as a part reads them."""
    values = settings.model_dump(mode="json", exclude_none=True)
    values["api_keys"] = json.dumps(values["api_keys"])
    return {
        f"NAG_{name.upper()}": ",".join(value) if isinstance(value, list) else str(value)
        for name, value in values.items()
    }


def _dying_with_parent(number: signal.Signals) -> Callable[[], None] | None:
    """Run in the child before it becomes its program: the kernel signals it when this process dies."""
    if not sys.platform.startswith("linux"):
        return None
    prctl = ctypes.CDLL(None, use_errno=True).prctl  # looked up here: little is safe between fork and exec
    parent = os.getpid()

    def arm() -> None:
        prctl(PR_SET_PDEATHSIG, number)
        if os.getppid() != parent:  # it died before the kernel was told
            os._exit(1)

    return arm


@contextlib.contextmanager
def _sole_user_of(folder: Path) -> Iterator[None]:
    """Hold the data folder's lock, which the kernel frees however this process ends."""
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "up.lock").open("a") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise embedded.EmbeddedError(
                f"another `nag-server up` runs on {folder}; stop it, or set NAG_DATA_DIR to another folder"
            ) from error
        yield


def _free_port(settings: Settings) -> int:
    """settings.port, or a free one for 0: chosen here, so that a restarted API keeps it. Raises OSError."""
    family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
    try:
        with socket.create_server((settings.host, settings.port), family=family) as probe:
            return int(probe.getsockname()[1])
    except OSError as error:
        if error.errno != errno.EADDRINUSE:
            raise
        message = f"port {settings.port} on {settings.host} is taken; set NAG_PORT to another, or to 0 for a free one"
        raise OSError(errno.EADDRINUSE, message) from error


def _say(state: str) -> None:
    print(f"nag-server: {state}", flush=True)
