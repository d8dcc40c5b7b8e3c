"""A queue and one API process without a worker, for what is read of the front end alone."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from app.queue import embedded
from app.settings import Settings

__all__ = ["paused"]

END_S = 30


@contextmanager
def paused(
    folder: Path, start: Sequence[str] = ("-m", "app.cli"), **environment: str
) -> Iterator[tuple[str, Settings]]:
    """The API's URL on a free loopback port, and settings that lead to its queue. Its log is `folder/api.log`.

    `start` is how Python is told to become the console script; `environment` holds further settings of the
    API, as NAG_QUEUE_LIMIT="9".
    """
    settings = Settings(data_dir=folder, redis_url=None)
    server = embedded.start(settings)
    others = {name: value for name, value in os.environ.items() if not name.startswith("NAG_")}
    said = {"NAG_DATA_DIR": str(folder), "NAG_HOST": "127.0.0.1", "NAG_PORT": "0", "NAG_DRAIN_S": "0", **environment}
    with (folder / "api.log").open("wb") as log:
        process = subprocess.Popen(
            [sys.executable, *start, "api"], env=others | said, stdout=subprocess.PIPE, stderr=log
        )
    try:
        assert process.stdout is not None
        started = process.stdout.readline().decode()
        match = re.search(r"http://\S+", started)
        if match is None:
            raise RuntimeError(f"the API did not start:\n{(folder / 'api.log').read_text()}")
        yield match[0], settings
    finally:
        process.terminate()
        process.wait(END_S)
        assert process.stdout is not None
        process.stdout.close()
        server.stop()
