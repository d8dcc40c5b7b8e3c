from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest

from app.catalog import UploadedLora
from app.errors import Conflict, InvalidParameter, NotFound
from app.jobs import TENANT, Job, JobError, JobStatus, LoraUse
from app.queue.queue import Queue
from tests.claiming import claim
from tests.queue.support import MODEL, RESULT, assert_consistent, look, lose, make_lora

Make = Callable[..., Job]
ROOM = {"most": 3, "most_bytes": 100}


def using(job: Job, *loras: UploadedLora) -> Job:
    uses = (LoraUse("of-the-catalog", 1.0), *(LoraUse(lora.use_id, 0.5) for lora in loras))
    return replace(job, request=replace(job.request, loras=uses))


async def test_a_tenant_sees_its_own_and_those_of_all(queue: Queue) -> None:
    mine, other, shared = make_lora("mine"), make_lora("other", "b"), make_lora("shared", None)
    for lora in (mine, other, shared):
        await queue.loras.add(lora, **ROOM)
    assert await queue.loras.visible(TENANT) == [shared, mine]
    assert await queue.loras.visible("b") == [shared, other]
    assert await queue.loras.visible("c") == [shared]
    assert await queue.loras.find(other.use_id) == other
    assert await queue.loras.find("other") is None
    await queue.loras.drop(other)
    assert await queue.loras.visible("b") == [shared]
    assert await queue.loras.find(other.use_id) is None
    with pytest.raises(NotFound):
        await queue.loras.drop(other)


async def test_an_id_is_taken_once_a_tenant_and_never_beside_one_of_all(queue: Queue) -> None:
    await queue.loras.add(make_lora(), **ROOM)
    with pytest.raises(Conflict, match="already"):
        await queue.loras.add(make_lora(version="f" * 16), **ROOM)
    await queue.loras.add(make_lora(tenant="b"), **ROOM)
    await queue.loras.add(make_lora("shared", None), **ROOM)
    with pytest.raises(Conflict, match="already"):
        await queue.loras.add(make_lora("shared"), **ROOM)


async def test_a_tenant_has_limits_of_its_own(queue: Queue) -> None:
    for name in "abc":
        await queue.loras.add(make_lora(name), **ROOM)
    with pytest.raises(Conflict, match="limit is 3 LoRAs"):
        await queue.loras.add(make_lora("d"), **ROOM)
    await queue.loras.add(make_lora("d", "b"), **ROOM)
    await queue.loras.drop(make_lora("a"))
    await queue.loras.add(make_lora("large", size_bytes=80), **ROOM)
    await queue.loras.drop(make_lora("b"))
    with pytest.raises(Conflict, match="limit is 100 bytes"):
        await queue.loras.add(make_lora("small", size_bytes=11), **ROOM)
    assert [lora.id for lora in await queue.loras.visible(TENANT)] == ["c", "large"]


async def test_one_that_jobs_need_is_not_dropped(queue: Queue, make_job: Make) -> None:
    lora = make_lora()
    await queue.loras.add(lora, **ROOM)
    for name in "abcde":
        await queue.submit(using(make_job(name), lora))
    await assert_consistent(queue._redis)
    with pytest.raises(Conflict, match="5 jobs need"):
        await queue.loras.drop(lora)
    await queue.cancel("a")
    await queue.delete("b")
    [done, failed] = await claim(queue, "w", MODEL, 2, 0)
    await queue.finish("w", done.id, RESULT)
    await queue.fail("w", failed.id, JobError("x", "x"))
    await assert_consistent(queue._redis)
    with pytest.raises(Conflict, match="1 job needs"):
        await queue.loras.drop(lora)
    await queue.cancel("e")
    await assert_consistent(queue._redis)
    await queue.loras.drop(lora)


async def test_a_job_with_one_that_was_dropped_is_not_queued(queue: Queue, make_job: Make) -> None:
    with pytest.raises(InvalidParameter, match="was deleted meanwhile"):
        await queue.submit(using(make_job("a"), make_lora()))
    assert await queue.get("a") is None
    await queue.submit(using(make_job("a")))
    assert (await look(queue, "a")).request.loras == (LoraUse("of-the-catalog", 1.0),)


async def test_a_replayed_job_needs_it_again(hasty: Queue, make_job: Make) -> None:
    lora = make_lora()
    await hasty.loras.add(lora, **ROOM)
    await hasty.submit(using(make_job("a"), lora))
    await lose(hasty, "a", 2)
    assert (await look(hasty, "a")).status is JobStatus.FAILED
    assert await hasty.dead.replay(["a"]) == ["a"]
    with pytest.raises(Conflict, match="1 job needs"):
        await hasty.loras.drop(lora)


async def test_a_job_that_the_server_has_evicted_needs_nothing(queue: Queue, make_job: Make) -> None:
    lora = make_lora()
    await queue.loras.add(lora, **ROOM)
    await queue.submit(using(make_job("a"), lora))
    await queue._redis.delete(queue.keys.job("a"))
    await queue.loras.drop(lora)
