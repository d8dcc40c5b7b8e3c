"""What memory does a file of several GiB take on its way through a worker's store and the API?

python -m benchmarks.large_files
Also into a bucket, whose keys obstore reads from AWS_ENDPOINT, AWS_ACCESS_KEY_ID and so on: --bucket s3://bucket/prefix
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

import httpx

from app.artifacts import Artifacts, artifact_name
from app.artifacts.signed_urls import Links
from app.settings import Settings
from benchmarks import report

COLUMNS = ("kept in", "file, GiB", "stored, s", "writer's memory, MiB", "sent by the API, s", "API's memory, MiB")
MIB, GIB = 2**20, 2**30
ADDRESS = re.compile(r"http://\S+")


@dataclass(frozen=True)
class Reading:
    """Memory in MiB: of the process beforehand, and at its peak."""

    kept_in: str
    file_gib: float
    stored_s: float
    writer_mib: tuple[float, float]
    sent_s: float
    api_mib: tuple[float, float]


def measure(size_bytes: int, folder: Path, bucket: str | None) -> Reading:
    """Measures one file of zeros, stored by a process of its own and then fetched from an API by its signed link."""
    name = artifact_name("job_large", 0, "mp4")
    read = {"NAG_DATA_DIR": str(folder), "NAG_ARTIFACTS_LINKS": "api", "NAG_REDIS_URL": "redis://127.0.0.1:9"}
    environment = os.environ | read | ({} if bucket is None else {"NAG_ARTIFACTS_URL": bucket})
    asked = [sys.executable, "-m", "benchmarks.large_files", "--store", name, "--bytes", str(size_bytes)]
    said = json.loads(subprocess.run(asked, env=environment, check=True, capture_output=True, text=True).stdout)
    with _api(environment) as (url, pid):
        settings = Settings(data_dir=folder)
        link = Links.open(settings.model_copy(update={"artifacts_links": "api"}), Artifacts.open(settings)).to(name).url
        httpx.get(url + link, headers={"range": "bytes=0-99"}, trust_env=False, timeout=60).raise_for_status()
        before, begun, received = _memory_mib(pid, "VmRSS"), time.monotonic(), 0
        with httpx.stream("GET", url + link, trust_env=False, timeout=60) as answer:
            for chunk in answer.iter_raw():
                received += len(chunk)
        assert received == size_bytes, f"{received} bytes came"
        sent_s, peak = time.monotonic() - begun, _memory_mib(pid, "VmHWM")
    where = "folder" if bucket is None else bucket.partition(":")[0]
    return Reading(where, size_bytes / GIB, said["seconds"], tuple(said["mib"]), sent_s, (before, peak))


async def store(name: str, size_bytes: int) -> None:
    """In this process, by the settings of the environment; prints what it took."""
    artifacts = Artifacts.open(Settings())
    with tempfile.TemporaryFile() as file:  # a hole: it takes no room before it is stored
        await artifacts.save(artifact_name("job_small", 0, "mp4"), b"x")
        file.truncate(size_bytes)
        before, begun = _memory_mib(os.getpid(), "VmRSS"), time.monotonic()
        assert await artifacts.save(name, file) == size_bytes
        seconds = time.monotonic() - begun
    print(json.dumps({"seconds": seconds, "mib": [before, _memory_mib(os.getpid(), "VmHWM")]}))


@contextmanager
def _api(environment: dict[str, str]) -> Iterator[tuple[str, int]]:
    command = [sys.executable, "-m", "app.cli", "api"]
    with subprocess.Popen(command, env=environment | {"NAG_PORT": "0"}, stdout=subprocess.PIPE, text=True) as api:
        assert api.stdout is not None
        try:
            for line in api.stdout:
                if found := ADDRESS.search(line):
                    yield found[0], api.pid
                    break
            else:
                raise RuntimeError(f"the API ended with code {api.wait()}")
        finally:
            api.terminate()


def _memory_mib(pid: int, kind: str) -> float:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) / 1024 for line in lines if line.startswith(kind))


def _told(mib: tuple[float, float]) -> str:
    return f"{mib[0]:.0f}, at most {mib[1]:.0f}"


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.large_files", description=__doc__)
    parser.add_argument("--gib", type=float, default=4.0)
    parser.add_argument("--bucket", help="also into this one, as NAG_ARTIFACTS_URL")
    parser.add_argument("--store", help=argparse.SUPPRESS)
    parser.add_argument("--bytes", type=int, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.store is not None:
        asyncio.run(store(arguments.store, arguments.bytes))
        return
    readings = []
    for bucket in (None, *([arguments.bucket] if arguments.bucket else [])):
        with tempfile.TemporaryDirectory(prefix="nag-large-") as folder:
            readings.append(measure(int(arguments.gib * GIB), Path(folder), bucket))
    rows = [
        [
            reading.kept_in,
            f"{reading.file_gib:g}",
            f"{reading.stored_s:.1f}",
            _told(reading.writer_mib),
            f"{reading.sent_s:.1f}",
            _told(reading.api_mib),
        ]
        for reading in readings
    ]
    title = f"A file of {arguments.gib:g} GiB through the store and the API"
    report.write("large_files", title, COLUMNS, rows, [asdict(reading) for reading in readings], report.machine())


if __name__ == "__main__":
    main()
