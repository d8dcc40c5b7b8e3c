"""Valkey servers of a test's own, on loopback ports."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from redis import Redis
from redis.exceptions import RedisError

from app.queue import embedded
from tests.ports import free_ports

START_S = 30.0


@dataclass(frozen=True)
class Server:
    port: int
    socket: Path
    admin: Redis

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}"


@contextmanager
def valkey(folder: Path, *arguments: str) -> Iterator[Server]:
    """A server with these arguments; its files lie in a folder of the test's."""
    [port] = free_ports(1)
    folder.mkdir(exist_ok=True)
    options = {
        "--port": str(port), "--bind": "127.0.0.1", "--dir": str(folder), "--unixsocket": str(folder / "sock"),
        "--repl-diskless-sync-delay": "0",
    }  # fmt: skip
    if "--sentinel" in arguments:
        del options["--repl-diskless-sync-delay"]
    command = [embedded._binary(), *arguments, *(word for option in options.items() for word in option)]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    try:
        with Redis(port=port, decode_responses=True) as admin:
            wait_until(admin.ping)
            yield Server(port, folder / "sock", admin)
    finally:
        process.kill()
        process.wait()


@contextmanager
def sentinel(folder: Path, service: str, primary: Server) -> Iterator[Server]:
    """A Sentinel that alone decides about a primary and its replicas."""
    config = folder / "sentinel.conf"
    config.write_text(
        f"sentinel monitor {service} 127.0.0.1 {primary.port} 1\nsentinel down-after-milliseconds {service} 500\n"
    )
    with valkey(folder, str(config), "--sentinel") as server:
        yield server


def wait_until(condition: Callable[[], object]) -> None:
    """Until the condition holds; errors of Redis count as no."""
    deadline = time.monotonic() + START_S
    while True:
        with suppress(RedisError):
            if condition():
                return
        assert time.monotonic() < deadline
        time.sleep(0.02)
