"""The scripts on a node of a Cluster, which refuses a script that reaches for a key of another slot."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from redis import Redis
from redis.exceptions import RedisError

from app.jobs import Job
from app.queue import embedded
from app.settings import Settings
from tests.ports import free_ports
from tests.queue.support import make_every_transition

SLOTS = 16384


@pytest.fixture
def node(tmp_path: Path) -> Iterator[str]:
    """The address of a node that serves the slot of our hash tag, and no other."""
    port, bus_port = free_ports(2)
    options = ["--port", str(port), "--cluster-port", str(bus_port), "--cluster-enabled", "yes", "--save", "",
               "--dir", str(tmp_path), "--cluster-require-full-coverage", "no"]  # fmt: skip
    process = subprocess.Popen([embedded._binary(), *options], stdout=subprocess.DEVNULL)
    try:
        with Redis(port=port, decode_responses=True) as redis:
            deadline = time.monotonic() + 30
            while True:
                try:
                    slot = redis.execute_command("CLUSTER KEYSLOT", "{nag}:leases")
                    break
                except RedisError:
                    assert process.poll() is None
                    assert time.monotonic() < deadline
                    time.sleep(0.05)
            redis.execute_command("CLUSTER ADDSLOTS", slot)
            while redis.execute_command("CLUSTER INFO")["cluster_state"] != "ok":
                assert time.monotonic() < deadline
                time.sleep(0.05)
            with pytest.raises(RedisError, match=r"CLUSTERDOWN|MOVED|not served"):
                redis.set("elsewhere", "x")
        yield f"redis://127.0.0.1:{port}"
    finally:
        process.kill()
        process.wait()


async def test_every_transition_keeps_to_one_slot(node: str, settings: Settings, make_job: Callable[..., Job]) -> None:
    await make_every_transition(node, settings, make_job)
