"""A process as a container would be: its file system, user and environment, and what an engine does to it."""

from __future__ import annotations

import itertools
import json
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

ENTER = Path(__file__).with_name("enter.py")
PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_numbers = itertools.count()


class RehearsalError(Exception):
    """What was rehearsed does not work."""


@dataclass(frozen=True)
class Container:
    """`binds` are source, target and whether it may be written; `tmpfs` is options by target."""

    name: str
    root: str
    command: tuple[str, ...]
    user: str = "0:0"
    folder: str = "/"
    environment: tuple[tuple[str, str], ...] = ()
    binds: tuple[tuple[str, str, bool], ...] = ()
    tmpfs: tuple[tuple[str, str], ...] = ()
    read_only: bool = False

    def run(self, log: Path) -> subprocess.Popen[bytes]:
        """Its command as a process of its own; what it says goes to `log`."""
        Path(self.root).mkdir(parents=True, exist_ok=True)
        said = asdict(self) | {"environment": dict(self.environment), "tmpfs": dict(self.tmpfs)}
        spec = Path(self.root).with_name(f"{self.name}-{next(_numbers)}.json")
        spec.write_text(json.dumps(said))
        with log.open("ab") as out:
            return subprocess.Popen(
                ["unshare", "--mount", "--propagation", "private", sys.executable, "-I", str(ENTER), str(spec)],
                stdin=subprocess.DEVNULL, stdout=out, stderr=subprocess.STDOUT, start_new_session=True,
            )  # fmt: skip

    def execute(self, command: Sequence[str], timeout_s: float, **changes: object) -> tuple[int, str]:
        """As `docker exec`: another command in it; the exit code and what was said."""
        log = Path(self.root).with_name(f"{self.name}.exec")
        log.unlink(missing_ok=True)
        process = replace(self, command=tuple(command), **changes).run(log)  # type: ignore[arg-type]
        try:
            return process.wait(timeout_s), log.read_text()
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
            return 124, log.read_text()


def end(process: subprocess.Popen[bytes], grace_s: float) -> tuple[int, float]:
    """Returns exit code and seconds of a `docker stop`. Raises RehearsalError if SIGKILL would follow."""
    begun_s = time.monotonic()
    process.send_signal(signal.SIGTERM)
    try:
        code = process.wait(grace_s)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
        raise RehearsalError(f"is still there {grace_s:g} s after SIGTERM") from None
    return code, time.monotonic() - begun_s
