"""Connections that end: closed by an idle timeout, or leading to a server that has become a replica."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest
from redis.exceptions import RedisError

from app.jobs import Job, JobStatus
from app.queue.queue import Queue
from app.settings import Settings
from tests.claiming import claim
from tests.queue.servers import Server, sentinel, valkey, wait_until
from tests.queue.support import MODEL, RESULT, look

Make = Callable[..., Job]
Connect = Callable[..., Queue]


def replicate(replica: Server, primary: Server) -> None:
    replica.admin.replicaof("127.0.0.1", str(primary.port))
    wait_until(lambda: replica.admin.info("replication")["master_link_status"] == "up")


def fail_over(primary: Server, replica: Server) -> None:
    """The replica becomes the primary, and the other way round."""
    replica.admin.replicaof("NO", "ONE")
    replicate(primary, replica)


@pytest.mark.slow
async def test_a_connection_closed_while_idle_is_opened_again(
    tmp_path: Path, settings: Settings, connect: Connect
) -> None:
    with valkey(tmp_path, "--timeout", "1") as server:
        queue = connect(settings, server.url)
        await asyncio.gather(*(queue.ping() for _ in range(4)))
        wait_until(lambda: len(server.admin.client_list()) == 1)
        assert await asyncio.gather(*(queue.loads() for _ in range(4))) == [[]] * 4


async def test_a_primary_that_was_demoted_is_left_for_the_new_one(
    tmp_path: Path, settings: Settings, make_job: Make, connect: Connect
) -> None:
    with valkey(tmp_path / "a") as old, valkey(tmp_path / "b") as new:
        replicate(new, old)
        address = tmp_path / "sock"  # as a name in DNS leads to another server after a failover
        address.symlink_to(old.socket)
        queue = connect(settings, f"unix://{address}")
        await queue.submit(make_job("a"))
        waiting = asyncio.create_task(queue.wait("a", 60))
        async with queue.follow("a") as feed:
            await feed.next(60)
            fail_over(old, new)
            address.unlink()
            address.symlink_to(new.socket)
            await queue.submit(make_job("b"))
            assert [job.id for job in await claim(queue, "w", MODEL, 2, 1)] == ["a", "b"]
            assert await queue.finish("w", "a", RESULT)
            # Those who subscribed at the old primary are told by replication.
            job = await waiting
            assert job is not None
            assert job.status is JobStatus.COMPLETED
            heard: list[str] = []
            while "completed" not in heard:
                heard += [event.type for event in await feed.next(60)]
        assert new.admin.exists(queue.keys.job("b"))


async def test_a_server_that_stays_a_replica_is_an_error(
    tmp_path: Path, settings: Settings, make_job: Make, connect: Connect
) -> None:
    with valkey(tmp_path / "a") as primary, valkey(tmp_path / "b") as replica:
        replicate(replica, primary)
        queue = connect(settings, replica.url)
        with pytest.raises(RedisError, match="read only replica"):
            await queue.submit(make_job("a"))


@pytest.mark.slow
async def test_sentinels_name_the_primary_before_and_after_a_failover(
    tmp_path: Path, settings: Settings, make_job: Make, connect: Connect
) -> None:
    with valkey(tmp_path / "a") as old, valkey(tmp_path / "b") as new:
        replicate(new, old)
        with sentinel(tmp_path / "a", "primary", old) as watcher:
            wait_until(lambda: watcher.admin.sentinel_slaves("primary"))
            queue = connect(settings, f"sentinel://127.0.0.1:1,127.0.0.1:{watcher.port}/primary")
            await queue.submit(make_job("a"))
            old.admin.shutdown(nosave=True)
            async with asyncio.timeout(60):
                while not new.admin.exists(queue.keys.job("b")):
                    with suppress(RedisError):  # until the Sentinel has made the replica the primary
                        await queue.submit(make_job("b"))
                    await asyncio.sleep(0.05)
            assert (await look(queue, "a")).status is JobStatus.QUEUED
