"""Resources of the machine: a lock on the data folder, a free port, and a signal to the parts if their parent dies."""

from __future__ import annotations

import contextlib
import ctypes
import errno
import fcntl
import os
import signal
import socket
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

from app.folders import writable_folder
from app.queue import embedded
from app.settings import Settings

__all__ = ["arm_parent_death_signal", "free_port", "sole_user_of"]

PR_SET_PDEATHSIG = 1


@contextlib.contextmanager
def sole_user_of(folder: Path) -> Iterator[None]:
    """Hold the data folder's lock, which the kernel frees however this process ends. Raises FolderError."""
    writable_folder(folder, "NAG_DATA_DIR")
    with (folder / "up.lock").open("a") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise embedded.EmbeddedError(
                f"another `nag-server up` runs on {folder}; stop it, or set NAG_DATA_DIR to another folder"
            ) from error
        yield


def free_port(settings: Settings) -> int:
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


def arm_parent_death_signal(number: signal.Signals) -> Callable[[], None] | None:
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
