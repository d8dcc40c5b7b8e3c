"""What memory do a 200 MB video and a 60-megapixel image take in the API and in a worker?

python -m benchmarks.input_memory
Starts a service on this machine. Each file is uploaded, and then named by a request. The peaks are of the resident set.
"""

from __future__ import annotations

import io
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import av
import httpx
import psutil
from PIL import Image

from app.cli.local_service import running
from benchmarks import report
from benchmarks.edit_memory import MB

CATALOG = '[models.changing]\nextends = "shapes-wan"\ninputs = { video = {} }\n'
LIMIT_PX = 64_000_000
COLUMNS = ("what", "file, MB", "answer", "API before, MB", "API peak, MB", "worker before, MB", "worker peak, MB")
FRAME_BYTES = 1280 * 720 * 3 // 2


@dataclass(frozen=True)
class Reading:
    """Resident memory in bytes, before a request and at its peak."""

    name: str
    file_bytes: int
    answer: str
    api_bytes: tuple[int, int]
    worker_bytes: tuple[int, int]


def video(size_bytes: int) -> bytes:
    """Returns a Matroska file of about this size, of uncompressed frames of 1280x720 pixels."""
    file = io.BytesIO()
    with av.open(file, "w", format="matroska") as container:
        stream = container.add_stream("rawvideo", rate=24)
        assert isinstance(stream, av.VideoStream)
        stream.width, stream.height, stream.pix_fmt = 1280, 720, "yuv420p"
        frame = av.VideoFrame(1280, 720, "yuv420p")
        for _ in range(size_bytes // FRAME_BYTES):
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return file.getvalue()


def photo(width: int, height: int) -> bytes:
    """Returns a progressive JPEG, which takes the most memory to decode."""
    file = io.BytesIO()
    Image.linear_gradient("L").resize((width, height)).convert("RGB").save(file, "JPEG", progressive=True)
    return file.getvalue()


@contextmanager
def service(folder: Path, **settings: str) -> Iterator[tuple[httpx.Client, dict[str, psutil.Process]]]:
    """A client of a running service, and its API and worker processes by name."""
    folder.mkdir(exist_ok=True)
    catalog = folder / "models.toml"
    catalog.write_text(CATALOG)
    with running(folder, catalog, settings=settings) as url:
        processes = {
            process.cmdline()[-1]: process for process in psutil.Process().children(recursive=True) if process.cmdline()
        }
        with httpx.Client(base_url=url, trust_env=False, timeout=300) as client:
            yield client, processes


def measure(
    name: str,
    file: bytes,
    fields: Mapping[str, Any],
    role: str,
    client: httpx.Client,
    processes: Mapping[str, psutil.Process],
) -> list[Reading]:
    """Uploads a file and runs a job that starts from it. Each is a reading; a refusal is its answer."""
    readings = []

    def read(what: str, send: Callable[[], httpx.Response]) -> httpx.Response:
        before = {process: _memory(processes[process], "VmRSS") for process in ("api", "worker")}
        for process in before:
            Path(f"/proc/{processes[process].pid}/clear_refs").write_text("5")  # the peak starts anew
        response = send()
        peaks = {process: (before[process], _memory(processes[process], "VmHWM")) for process in before}
        answer = _answer(response)
        readings.append(Reading(f"{name}: {what}", len(file), answer, peaks["api"], peaks["worker"]))
        return response

    upload = read("upload", lambda: client.post("/v1/files", files={"file": file}))
    if upload.is_success:
        body = {"prompt": "a blue circle", role: upload.json()["id"], **fields}
        read("job", lambda: client.post("/v1/jobs", json=body, headers={"prefer": "wait=120"}))
        client.delete(f"/v1/files/{upload.json()['id']}")
    return readings


def _answer(response: httpx.Response) -> str:
    if response.is_success:
        return str(response.json().get("status", response.status_code))
    return f"{response.status_code} {response.json()['error']['message']}"


def _memory(process: psutil.Process, name: str) -> int:
    lines = Path(f"/proc/{process.pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(name))


def main() -> None:
    readings: list[Reading] = []
    with tempfile.TemporaryDirectory(prefix="nag-bench-") as folder:
        with service(Path(folder) / "limits") as (client, processes):
            changing = {"model": "changing"}
            small, flux = video(4 * MB), {"model": "shapes-flux"}
            measure("warm-up", small, changing, "video", client, processes)  # imports and caches of the first request
            measure("warm-up", photo(800, 600), flux, "image", client, processes)
            readings += measure("video of 199 MB", video(199 * MB), changing, "video", client, processes)
            readings += measure("video of 200.4 MB", video(201 * MB), changing, "video", client, processes)
            readings += measure("image of 60 megapixels", photo(10_000, 6_000), flux, "image", client, processes)
        with service(Path(folder) / "raised", NAG_INPUT_MAX_PX=str(LIMIT_PX)) as (client, processes):
            measure("warm-up", photo(800, 600), flux, "image", client, processes)
            name = f"image of 60 megapixels, NAG_INPUT_MAX_PX={LIMIT_PX}"
            readings += measure(name, photo(10_000, 6_000), flux, "image", client, processes)
    rows = [
        [
            reading.name, f"{reading.file_bytes / MB:.1f}", reading.answer,
            *(f"{size / MB:.0f}" for size in (*reading.api_bytes, *reading.worker_bytes)),
        ]
        for reading in readings
    ]  # fmt: skip
    title = "Memory of the API and a worker with large input files"
    report.write("input_memory", title, COLUMNS, rows, [asdict(reading) for reading in readings], report.machine())


if __name__ == "__main__":
    main()
