"""A worker over two machines: two processes that share the queue and a connection, and no files."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from app.catalog import Catalog
from app.jobs import Guidance, Job, JobStatus
from app.queue.queue import Queue
from app.settings import Settings
from tests.hub.repositories import write_repositories
from tests.hub.server import TOKEN, serve_hub
from tests.limits import HANG_S

pytestmark = pytest.mark.slow  # starts two workers

CATALOG = """
[models.split]
extends = "flux-schnell"
parallel = { ulysses = 2 }
"""
ENTRY = Catalog.known(Settings())["flux-schnell"]


@pytest.fixture
def machines(settings: Settings, tmp_path: Path) -> Iterator[list[Path]]:
    """Starts a worker on both, and yields the folder of each one's models."""
    (tmp_path / "models.toml").write_text(CATALOG)
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    homes = [tmp_path / "first", tmp_path / "second"]
    with ExitStack() as stack:
        hub = stack.enter_context(serve_hub(write_repositories(tmp_path / "hub", {ENTRY.repository})))
        variables = {
            "NAG_DATA_DIR": str(settings.data_dir), "NAG_REDIS_URL": str(settings.redis_url), "NAG_DEVICE": "cpu",
            "NAG_CATALOG": str(tmp_path / "models.toml"), "NAG_MODELS": "split", "NAG_NODES": "2", "NAG_DEVICES": "0",
            "NAG_RENDEZVOUS": f"tcp://127.0.0.1:{port}", "GLOO_SOCKET_IFNAME": "lo", "HF_ENDPOINT": hub.url,
            "HF_TOKEN": TOKEN, "HF_HUB_DISABLE_XET": "1",
        }  # fmt: skip
        workers = [
            subprocess.Popen(
                [sys.executable, "-m", "app.cli", "worker"],
                env=os.environ | variables | {"NAG_NODE": str(number), "HF_HOME": str(home)},
            )
            for number, home in enumerate(homes)
        ]
        for worker in workers:
            stack.callback(worker.wait, HANG_S)
        stack.callback(workers[0].kill)  # the other one ends with it
        yield homes


async def test_each_machine_downloads_the_weights_and_both_make_a_guided_image(
    machines: list[Path], queue: Queue, make_job: Callable[..., Job]
) -> None:
    guidance = Guidance(5.0, 2.5, 0.25, 1.0, "a blue square")
    await queue.submit(make_job("a", model="split", nag=guidance))
    job = await queue.wait("a", HANG_S)
    assert job is not None
    assert (job.status, job.attempts) == (JobStatus.COMPLETED, 1), job.error
    for home in machines:
        assert list(home.rglob("transformer/*.safetensors"))
