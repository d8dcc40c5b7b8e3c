"""Do processes that store and read files, or load and call a model, end with code 0 if they are told to end?

python -m benchmarks.clean_exits
python -m benchmarks.clean_exits --runs store=200 api=50
"""

from __future__ import annotations

import argparse
import asyncio
import os
import signal
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
from tqdm import tqdm

from app.artifacts import Artifacts, artifact_name
from app.artifacts.signed_urls import Links
from app.cli.client import Client
from app.queue import embedded
from app.settings import Settings
from benchmarks import report

LARGE_BYTES = 40_265_318
BODY = {"prompt": "a shape", "n": 2}
LONG_BODY = {"prompt": "a shape", "n": 4, "num_inference_steps": 50}
#: Runs of each kind; a kind is a method of Runs.
COUNTS = {"store": 200, "api": 50, "worker": 50, "start": 20, "load": 30, "denoise": 50, "up": 50}
SIGNALS = (signal.SIGTERM, signal.SIGINT)
DELAYS = 20  # different ones before a signal
READY_S, END_S = 300.0, 120.0
#: Exit code of a process that did not end.
HUNG = 999


class Runs:
    """One run of each kind of process, as its exit code. They share a folder, an embedded server and an API.

    The number of a run decides which signal the process gets, and when.
    """

    def __init__(self, folder: Path) -> None:
        self._settings = Settings(data_dir=folder)
        self._environment = os.environ | {
            "NAG_DATA_DIR": str(folder),
            "NAG_REDIS_URL": embedded.url(self._settings),
            "NAG_BATCH_BUDGET": "fixed",  # a worker is ready sooner
        }
        self._log = folder / "worker.log"
        self._url = ""

    @contextmanager
    def shared_api(self) -> Iterator[None]:
        """Runs the API that the workers' jobs come from."""
        with _process("api", self._environment, signal.SIGTERM) as (process, self._url):
            yield
        _code(process)

    def store(self, number: int) -> int:
        """Returns a process that stores a file of 40 MB as its last act."""
        name = artifact_name(f"job_{number}", 0, "mp4")
        command = [sys.executable, "-m", "benchmarks.large_files", "--store", name, "--bytes", str(LARGE_BYTES)]
        code = subprocess.run(command, env=self._environment, stdout=subprocess.DEVNULL).returncode
        asyncio.run(Artifacts.open(self._settings).delete(name))
        return code

    def api(self, number: int) -> int:
        """Returns an API, right after it has sent a file."""
        artifacts, name = Artifacts.open(self._settings), artifact_name("job", 0, "png")
        asyncio.run(artifacts.save(name, b"x" * 2**20))
        link = Links.open(self._settings, artifacts).to(name).url
        with _process("api", self._environment, _signal(number)) as (process, url):
            httpx.get(url + link, trust_env=False).raise_for_status()
        return _code(process)

    def worker(self, number: int) -> int:
        """Returns a worker, right after its job has completed."""
        with Client(self._url) as client, self._worker(number) as process:
            client.generate(BODY)
        return _code(process)

    def start(self, number: int) -> int:
        """Returns a worker while it imports torch."""
        with self._worker(number) as process:
            self._wait_for_line("worker_started")
            time.sleep(0.1 * (number % DELAYS))
        return _code(process)

    def load(self, number: int) -> int:
        """Returns a worker while it loads its model and makes the model's first images."""
        with self._worker(number, NAG_BATCH_BUDGET="measured") as process:
            self._wait_for_line("model_loading")
            time.sleep(0.1 * (number % DELAYS))
        return _code(process)

    def denoise(self, number: int) -> int:
        """Returns a worker in the middle of a job of many steps, which it hands back."""
        with httpx.Client(base_url=self._url, trust_env=False) as client:
            job_url = "/v1/jobs/" + client.post("/v1/jobs", json=LONG_BODY).raise_for_status().json()["id"]
            with self._worker(number, NAG_DRAIN_S="0") as process:
                _wait_until(
                    lambda: client.get(job_url).json()["progress"]["step"] > number % DELAYS, "the job is at work"
                )
            code = _code(process)
            client.delete(job_url).raise_for_status()
            return code

    def up(self, number: int) -> int:
        """Returns a whole service, right after an image was made and fetched."""
        environment = {name: value for name, value in self._environment.items() if name != "NAG_REDIS_URL"}
        with tempfile.TemporaryDirectory(prefix="nag-up-") as folder:
            environment["NAG_DATA_DIR"] = folder
            with _process("up", environment, _signal(number)) as (process, url), Client(url) as client:
                _wait_until(client.ready, "the service is ready")
                client.result(client.generate(BODY))
            return _code(process)

    @contextmanager
    def _worker(self, number: int, **settings: str) -> Iterator[subprocess.Popen[bytes]]:
        with (
            self._log.open("wb") as log,
            _process("worker", self._environment | settings, _signal(number), log.fileno()) as (process, _),
        ):
            yield process

    def _wait_for_line(self, event: str) -> None:
        _wait_until(lambda: event in self._log.read_text(), event)


@contextmanager
def _process(
    command: str, environment: dict[str, str], end: signal.Signals, log: int = subprocess.DEVNULL
) -> Iterator[tuple[subprocess.Popen[bytes], str]]:
    """Starts a `nag-server` process, and sends it the signal in the end; yields it and its address."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    process = subprocess.Popen(
        [sys.executable, "-m", "app.cli", command],
        env=environment | {"NAG_PORT": str(port)},
        stdout=subprocess.DEVNULL,
        stderr=log,
    )
    try:
        if command != "worker":
            _wait_until(lambda: _is_listening(port), f"{command} listens")
        yield process, f"http://127.0.0.1:{port}"
    finally:
        process.send_signal(end)


def _signal(number: int) -> signal.Signals:
    return SIGNALS[number % len(SIGNALS)]


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


def run(counts: dict[str, int]) -> Iterator[tuple[str, Counter[int]]]:
    """Yields each kind of process, and how many of its runs ended with which code."""
    with tempfile.TemporaryDirectory(prefix="nag-exits-") as folder:
        server = embedded.start(Settings(data_dir=Path(folder)))
        try:
            runs = Runs(Path(folder))
            with runs.shared_api():
                for kind, count in counts.items():
                    numbers = tqdm(range(count), kind, mininterval=10)
                    yield kind, Counter(getattr(runs, kind)(number) for number in numbers)
        finally:
            server.stop()


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.clean_exits", description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    default = [f"{kind}={count}" for kind, count in COUNTS.items()]
    parser.add_argument("--runs", nargs="+", default=default, metavar="KIND=COUNT", help=" ".join(default))
    counts = {kind: int(count) for kind, _, count in (run.partition("=") for run in parser.parse_args().runs)}
    codes: dict[str, Counter[int]] = {}
    for kind, seen in run(counts):
        codes[kind] = seen
        write(codes)
    return 1 if any(seen.keys() - {0} for seen in codes.values()) else 0


def write(codes: dict[str, Counter[int]]) -> None:
    """Prints and stores the table."""
    rows = [
        [
            str(getattr(Runs, kind).__doc__).rstrip("."),
            str(seen.total()),
            str(seen[0]),
            ", ".join(f"{count} with code {code}" for code, count in sorted(seen.items()) if code) or "none",
        ]
        for kind, seen in codes.items()
    ]
    columns = ("process told to end", "runs", "ended with code 0", "others")
    title = "Exit codes of processes that are told to end, by SIGTERM and SIGINT in turn"
    report.write("clean_exits", title, columns, rows, codes, report.machine())


if __name__ == "__main__":
    sys.exit(main())
