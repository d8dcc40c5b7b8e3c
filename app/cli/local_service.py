"""A whole service of one's own for a while: the demo and the benchmarks run against it, as any client would."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from app.cli.client import Client, ClientError
from app.queue import embedded
from app.settings import Settings

__all__ = ["running"]

READY_S = 400.0  # a busy machine loads torch for minutes; a service that fails ends by itself
STOP_S = 60.0
POLL_S = 0.1
#: Settings that would send the service somewhere else than into the given folder.
NOT_HANDED_ON = ("NAG_REDIS_URL", "NAG_CATALOG", "NAG_MODELS", "NAG_HOST", "NAG_API_KEYS", "NAG_API_KEYS_FILE")


@contextmanager
def running(
    folder: Path, catalog: Path | None = None, *, code: Path | None = None, settings: Mapping[str, str] | None = None
) -> Iterator[str]:
    """The URL of a service (`nag-server up`) on a free loopback port, its data and its log in `folder`.

    `catalog` adds to the built-in one, as NAG_CATALOG does. `code` is another checkout of this repository to run;
    absent, the code that this process runs. `settings` are further environment variables of the service.

    Entered when its worker is warm; left when all its processes are gone. Raises ClientError when it does not come up.
    """
    log = folder / "service.log"
    port = _free_port()
    # The environment is handed on, not read: that is the part of app.settings.
    environment = {name: value for name, value in os.environ.items() if name not in NOT_HANDED_ON}
    environment |= {**(settings or {}), "NAG_PORT": str(port), "NAG_DATA_DIR": str(folder / "data")}
    if catalog is not None:
        environment["NAG_CATALOG"] = str(catalog)
    if code is not None:
        environment["PYTHONPATH"] = str(code)
    with log.open("wb") as out:
        process = subprocess.Popen(
            [sys.executable, "-m", "app.cli", "up"],
            env=environment,
            cwd=code,  # `-m` looks there first
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=subprocess.STDOUT,
            start_new_session=True,  # Ctrl-C reaches us alone, and we pass it on
        )
    try:
        url = f"http://127.0.0.1:{port}"
        _wait_until_ready(url, process, log)
        yield url
    finally:
        _stop(process, folder / "data")


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])


def _wait_until_ready(url: str, process: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + READY_S
    with Client(url) as client:
        while not client.ready():
            if process.poll() is not None:
                raise ClientError(f"the service ended with code {process.returncode}:\n{_tail(log)}")
            if time.monotonic() > deadline:
                raise ClientError(f"the service is not ready after {READY_S:g} s:\n{_tail(log)}")
            time.sleep(POLL_S)


def _stop(process: subprocess.Popen[bytes], data_dir: Path) -> None:
    process.send_signal(signal.SIGINT)
    try:
        process.wait(STOP_S)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
        embedded.start(Settings(data_dir=data_dir)).stop()  # it outlives a killed `up`, to be adopted


def _tail(log: Path) -> str:
    return "\n".join(log.read_text(errors="replace").splitlines()[-15:])
