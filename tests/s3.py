"""A real S3 server that checks signatures: SeaweedFS, from its wheel."""

from __future__ import annotations

import asyncio
import json
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import httpx

from app.asyncio_utils import cancel_and_wait
from tests.limits import HANG_S

#: Each of its ports has another 10,000 above it.
PORTS = range(20_000, 45_000)
KEY, SECRET = "nag-key", "nag-secret"
BUCKET = "nag"


@dataclass(frozen=True)
class S3:
    """A running server with one bucket. `options` are obstore's."""

    endpoint: str
    url: str
    options: Mapping[str, str]


def find() -> str | None:
    """The wheel puts it beside the interpreter."""
    return shutil.which("weed", path=str(Path(sys.executable).parent)) or shutil.which("weed")


@contextmanager
def serving(executable: str, folder: Path) -> Iterator[S3]:
    ports = _free_ports()
    names = ("master.port", "volume.port", "filer.port", "s3.port")
    (folder / "data").mkdir()
    credentials = [{"accessKey": KEY, "secretKey": SECRET}]
    identity = {"name": "nag", "credentials": credentials, "actions": ["Admin", "Read", "Write", "List"]}
    (folder / "identities.json").write_text(json.dumps({"identities": [identity]}))
    with (folder / "weed.log").open("wb") as log:
        process = subprocess.Popen(
            [
                executable, "server", "-ip=127.0.0.1", f"-dir={folder / 'data'}", "-filer", "-s3",
                f"-s3.config={folder / 'identities.json'}", "-volume.max=20", "-master.volumeSizeLimitMB=256",
                *(f"-{name}={port}" for name, port in zip(names, ports, strict=True)),
            ],
            stdin=subprocess.DEVNULL, stdout=log, stderr=log,
        )  # fmt: skip
    try:
        _make_bucket(process, ports[2], ports[3], folder / "weed.log")
        endpoint = f"http://127.0.0.1:{ports[3]}"
        yield S3(endpoint, f"s3://{BUCKET}/some/prefix", _options(endpoint))
    finally:
        process.kill()  # in order it takes its time, and its files are nobody's
        process.wait()


@contextmanager
def silent() -> Iterator[tuple[socket.socket, S3]]:
    """A listening socket that never answers, and the bucket that it stands for."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        endpoint = f"http://127.0.0.1:{server.getsockname()[1]}"
        yield server, S3(endpoint, f"s3://{BUCKET}", _options(endpoint))


def _options(endpoint: str) -> dict[str, str]:
    return {"endpoint": endpoint, "region": "us-east-1", "access_key_id": KEY, "secret_access_key": SECRET}


@asynccontextmanager
async def without_bulk_deletes(server: S3) -> AsyncIterator[tuple[str, list[bytes]]]:
    """The server behind another endpoint, which refuses every bulk delete: that endpoint, and what was refused."""
    refused: list[bytes] = []
    host, port = server.endpoint.removeprefix("http://").split(":")

    async def copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, answers: asyncio.StreamWriter) -> None:
        with suppress(ConnectionError):
            while data := await reader.read(65536):
                if data.startswith(b"POST ") and b"?delete" in data.partition(b"\r\n")[0]:
                    refused.append(data)
                    answers.write(b"HTTP/1.1 501 Not Implemented\r\ncontent-length: 0\r\n\r\n")
                else:
                    writer.write(data)

    async def relay(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        far_reader, far_writer = await asyncio.open_connection(host, int(port))
        directions = {
            asyncio.create_task(copy(reader, far_writer, writer)), asyncio.create_task(copy(far_reader, writer, writer))
        }  # fmt: skip
        try:
            await asyncio.wait({*directions, stopped}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in directions:
                await cancel_and_wait(task)
            for side in (writer, far_writer):
                side.close()
                with suppress(ConnectionError):
                    await side.wait_closed()

    stopped: asyncio.Future[None] = asyncio.get_running_loop().create_future()
    relays: set[asyncio.Task[None]] = set()
    relaying = await asyncio.start_server(
        lambda reader, writer: relays.add(asyncio.create_task(relay(reader, writer))), "127.0.0.1", 0
    )
    try:
        yield f"http://127.0.0.1:{relaying.sockets[0].getsockname()[1]}", refused
    finally:
        relaying.close()
        stopped.set_result(None)
        await asyncio.gather(*relays)


def _make_bucket(process: subprocess.Popen[bytes], filer_port: int, s3_port: int, log: Path) -> None:
    """By the server's own file system, as soon as it answers; then until S3 knows it."""
    deadline = time.monotonic() + HANG_S
    with httpx.Client(trust_env=False, timeout=5) as http:
        for method, url, good in (
            ("POST", f"http://127.0.0.1:{filer_port}/buckets/{BUCKET}/", (200, 201)),
            ("GET", f"http://127.0.0.1:{s3_port}/{BUCKET}", (403,)),
        ):
            while True:
                assert process.poll() is None, f"ended with {process.returncode}:\n{log.read_text()[-2000:]}"
                assert time.monotonic() < deadline, f"does not come up:\n{log.read_text()[-2000:]}"
                try:
                    if http.request(method, url).status_code in good:
                        break
                except httpx.TransportError:
                    pass
                time.sleep(0.1)


def _free_ports() -> list[int]:
    free: list[int] = []
    for port in PORTS:
        try:
            with socket.create_server(("127.0.0.1", port)), socket.create_server(("127.0.0.1", port + 10_000)):
                free.append(port)
        except OSError:
            continue
        if len(free) == 4:
            return free
    raise AssertionError("no free ports")
