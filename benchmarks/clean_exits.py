"""Do processes that store and read files end with code 0, if told to end right after a file?

python -m benchmarks.clean_exits
python -m benchmarks.clean_exits --runs store=200 api=50
"""

from __future__ import annotations

import argparse
import asyncio
import os
import socket
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx

from app.artifacts import Artifacts, artifact_name
from app.artifacts.links import Links
from app.cli.client import Client
from app.queue import embedded
from app.settings import Settings

LARGE_BYTES = 40_265_318
BODY = {"prompt": "a shape", "n": 2}
READY_S, END_S = 300.0, 120.0
#: Exit code of a process that did not end.
HUNG = 999


class Runs:
    """One run of each kind of process, as its exit code. They share a folder and an embedded server."""

    def __init__(self, folder: Path) -> None:
        self._settings = Settings(data_dir=folder)
        self._environment = os.environ | {
            "NAG_DATA_DIR": str(folder),
            "NAG_REDIS_URL": embedded.url(self._settings),
            "NAG_BATCH_BUDGET": "fixed",  # a worker is ready sooner
        }

    def store(self) -> int:
        """A process that stores a file of 40 MB, as its last act."""
        name = artifact_name("job_large", 0, "mp4")
        command = [sys.executable, "-m", "benchmarks.large_files", "--store", name, "--bytes", str(LARGE_BYTES)]
        code = subprocess.run(command, env=self._environment, stdout=subprocess.DEVNULL).returncode
        asyncio.run(Artifacts.open(self._settings).delete(name))
        return code

    def api(self) -> int:
        """An API, right after it has sent a file."""
        artifacts, name = Artifacts.open(self._settings), artifact_name("job", 0, "png")
        asyncio.run(artifacts.save(name, b"x" * 2**20))
        link = Links.open(self._settings, artifacts).to(name).url
        with _process("api", self._environment) as (process, url):
            httpx.get(url + link, trust_env=False).raise_for_status()
        return _code(process)

    def worker(self) -> int:
        """A worker, right after its job has completed."""
        with _process("api", self._environment) as (_, url), Client(url) as client:
            with _process("worker", self._environment) as (process, _):
                client.generate(BODY)
            return _code(process)

    def up(self) -> int:
        """A whole service, right after an image was made and fetched."""
        environment = {name: value for name, value in self._environment.items() if name != "NAG_REDIS_URL"}
        with tempfile.TemporaryDirectory(prefix="nag-up-") as folder:
            with _process("up", environment | {"NAG_DATA_DIR": folder}) as (process, url), Client(url) as client:
                _wait_until(client.ready, "the service is ready")
                client.result(client.generate(BODY))
            return _code(process)


@contextmanager
def _process(command: str, environment: dict[str, str]) -> Iterator[tuple[subprocess.Popen[bytes], str]]:
    """A `nag-server` process and its address; told to end in the end."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    process = subprocess.Popen(
        [sys.executable, "-m", "app.cli", command],
        env=environment | {"NAG_PORT": str(port)},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        if command != "worker":
            _wait_until(lambda: _is_listening(port), f"{command} listens")
        yield process, f"http://127.0.0.1:{port}"
    finally:
        process.terminate()


def _code(process: subprocess.Popen[bytes]) -> int:
    try:
        return process.wait(END_S)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
        return HUNG


def _is_listening(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def _wait_until(holds: Callable[[], bool], condition: str) -> None:
    deadline = time.monotonic() + READY_S
    while not holds():
        if time.monotonic() > deadline:
            raise TimeoutError(f"not within {READY_S:g} s: {condition}")
        time.sleep(0.05)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.clean_exits", description=__doc__)
    default = ["store=200", "api=50", "worker=50", "up=50"]
    parser.add_argument("--runs", nargs="+", default=default, metavar="KIND=COUNT", help=" ".join(default))
    counts = {kind: int(count) for kind, _, count in (run.partition("=") for run in parser.parse_args().runs)}
    with tempfile.TemporaryDirectory(prefix="nag-exits-") as folder:
        server = embedded.start(Settings(data_dir=Path(folder)))
        try:
            runs, codes = Runs(Path(folder)), Counter[int]()
            for kind, count in counts.items():
                seen = Counter(getattr(runs, kind)() for _ in range(count))
                print(f"{kind}: {', '.join(f'{n} with code {code}' for code, n in sorted(seen.items()))}", flush=True)
                codes += seen
        finally:
            server.stop()
    if codes.keys() - {0}:
        sys.exit(1)


if __name__ == "__main__":
    main()
