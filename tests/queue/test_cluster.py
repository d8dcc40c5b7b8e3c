"""The scripts on a node of a Cluster, which refuses a script that reaches for a key of another slot."""

from __future__ import annotations

import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from redis import Redis
from redis.exceptions import RedisError

from app.jobs import TENANT, EventType, Job, JobError, Webhook
from app.queue import embedded
from app.queue.queue import Queue
from app.settings import Settings
from tests.claiming import claim
from tests.queue.support import MODEL, RESULT, lose

SLOTS = 16384


@pytest.fixture
def node(tmp_path: Path) -> Iterator[str]:
    """The address of a node that serves the slot of our hash tag, and no other."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    options = ["--port", str(port), "--cluster-port", str(port - 1), "--cluster-enabled", "yes", "--save", "",
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
    queue = Queue.connect(settings.model_copy(update={"lease_s": 0.02, "max_attempts": 1}), node)
    ran: set[str] = set()
    run = queue._scripts.run

    async def noting(name: str, *arguments: str | int) -> object:
        ran.add(name)
        return await run(name, *arguments)

    queue._scripts.run = noting  # type: ignore[method-assign]
    for name in "abcde":
        await queue.submit(make_job(name), idempotency_key=name, api_key="key", pending_jobs=9)
    await queue.registry.announce("w", [MODEL], 30)
    assert len(await claim(queue, "w", MODEL, 3, 0)) == 3
    await queue.heartbeat("w", ["a", "b", "c"], 1)
    assert await queue.preview("w", "a", 1, 0, b"x", "image/jpeg")
    await queue.finish("w", "a", RESULT)
    await queue.fail("w", "b", JobError("x", "x"))
    await queue.release("w", ["c"])
    await queue.cancel("c")
    for name in "de":
        await lose(queue, name, 1)
    assert len(await queue.dead.list()) == 2
    assert await queue.dead.replay(["d"]) == ["d"]
    assert await queue.dead.drop(["e"]) == ["e"]
    await queue.upkeep.expire()
    await queue.upkeep.forget()
    await queue.submit(replace(make_job("told"), webhook=Webhook("http://example.com/", (EventType.CANCELLED,))))
    await queue.cancel("told")
    [[delivery], _] = await queue.webhooks.claim(9)
    await queue.webhooks.retry(delivery, 1)
    assert await queue.delete("told") is not None
    assert len((await queue.page(TENANT, 10)).jobs) == 5
    assert await queue.delete("b") is not None
    assert await queue.get("a") is not None
    assert [each.queued for each in await queue.loads()] == [1]
    assert (await queue.measures()).dead == 0
    await queue.registry.retire("w")
    assert await queue.registry.workers() == {}
    async with queue.slots.held("key", 1):
        assert (await queue.rates.take("key", "reads", 2)).remaining == 1
    await queue.close()
    assert ran == queue._scripts.names
