"""`python -m tests.artifacts.last_call CALL`: a process whose last act is that call of `Artifacts`.

Both sides of the race at the end of a process are widened: a thread that delivers a result stays in Python for a
while, and the interpreter takes longer than that to finalize.
"""

from __future__ import annotations

import asyncio
import io
import os
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any

from app.artifacts import Artifacts
from app.settings import Settings

STORED, NEW, GONE = (f"{name}-0-01234567.mp4" for name in ("stored", "new", "gone"))
DATA = b"x" * (9 * 2**20)  # two parts
STAY_S, FINALIZE_S = 0.2, 1.0


class SlowLoop(asyncio.SelectorEventLoop):
    def call_soon_threadsafe(self, *arguments: Any, **options: Any) -> asyncio.Handle:  # type: ignore[override]
        handle = super().call_soon_threadsafe(*arguments, **options)
        time.sleep(STAY_S)
        return handle


class SlowFinalizer:
    def __del__(self, sleep: Callable[[float], None] = time.sleep) -> None:
        sleep(FINALIZE_S)


async def stream(artifacts: Artifacts) -> None:
    assert b"".join([chunk async for chunk in artifacts.stream(STORED, 0, 1000)]) == DATA[:1000]


async def cancel(artifacts: Artifacts) -> None:
    reading = asyncio.create_task(artifacts.read(STORED))
    await asyncio.sleep(0)
    reading.cancel()


CALLS: dict[str, Callable[[Artifacts], Any]] = {
    "save": lambda artifacts: artifacts.save(NEW, DATA),
    "save_file": lambda artifacts: artifacts.save(NEW, io.BytesIO(DATA)),
    "find": lambda artifacts: artifacts.find(STORED),
    "read": lambda artifacts: artifacts.read(STORED),
    "stream": stream,
    "cancel": cancel,
    "sweep": lambda artifacts: artifacts.sweep(),
    "delete": lambda artifacts: artifacts.delete(GONE),
}


def failures(environment: dict[str, str]) -> dict[str, tuple[int, str]]:
    """The exit code and error output of each call whose process did not end in order.

    The environment names the store, which holds `STORED`.
    """
    processes = {
        call: subprocess.Popen(
            [sys.executable, "-m", __name__, call], env=os.environ | environment, stderr=subprocess.PIPE, text=True
        )
        for call in CALLS
    }
    errors = {call: process.communicate()[1] for call, process in processes.items()}
    return {call: (processes[call].returncode, error) for call, error in errors.items() if processes[call].returncode}


if __name__ == "__main__":
    finalizer = SlowFinalizer()
    with asyncio.Runner(loop_factory=SlowLoop) as runner:
        runner.run(CALLS[sys.argv[1]](Artifacts.open(Settings())))
