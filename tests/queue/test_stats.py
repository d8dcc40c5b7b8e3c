"""How long the queue is: counted in Redis, measured by results, told as seconds."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from app.errors import QueueFull
from app.jobs import Job
from app.queue.queue import Queue
from app.queue.stats import RETRY_UNKNOWN_S, QueueLoad, retry_after_s
from app.settings import Settings
from tests.claiming import claim
from tests.queue.clock import pass_time
from tests.queue.support import MODEL, RESULT

Make = Callable[..., Job]
Connect = Callable[..., Queue]
WORK = 64 * 64 * 2  # of a job of make_job


def load(**changes: float) -> QueueLoad:
    fields = {"queued": 1, "queued_work": 0, "held_work": 0, "work_per_s": 10.0, "workers": 1, **changes}
    return QueueLoad(model="m", **fields)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("changes", "wait_s"),
    [
        ({"queued_work": 100}, 10),
        ({"queued_work": 100, "workers": 4}, 2.5),
        ({"held_work": 100}, 5),
        ({"queued_work": 100, "workers": 0}, None),
        ({"queued_work": 100, "work_per_s": None}, None),
        ({}, 0),
    ],
)
def test_the_wait(changes: dict[str, float], wait_s: float | None) -> None:
    assert load(**changes).wait_s == wait_s


@pytest.mark.parametrize(
    ("works", "retry_s"),
    [([1], 1), ([123], 13), ([10**9], 120), ([300, 50], 6), ([], RETRY_UNKNOWN_S)],
)
def test_when_to_come_back(works: list[int], retry_s: int) -> None:
    assert retry_after_s(load(queued_work=each) for each in works) == retry_s


def test_an_empty_or_unmeasured_queue_tells_nothing() -> None:
    assert retry_after_s([load(queued=0), load(work_per_s=0), load(queued_work=70)]) == 8


async def test_work_is_counted_where_it_is(queue: Queue, make_job: Make) -> None:
    assert await queue.loads() == []
    for name, n in (("a", 1), ("b", 2), ("c", 1)):
        await queue.submit(make_job(name, n=n))
    await queue.registry.announce("w", [MODEL, "other"], 30)
    assert await queue.loads() == [QueueLoad(MODEL, 3, 4 * WORK, 0, None, 1)]
    await claim(queue, "w", MODEL, 3, 0)
    assert await queue.loads() == [QueueLoad(MODEL, 1, WORK, 3 * WORK, None, 1)]
    await queue.release("w", ["b"])
    await queue.cancel("a")
    assert await queue.loads() == [QueueLoad(MODEL, 2, 3 * WORK, 0, None, 1)]


async def test_the_speed_is_what_a_worker_at_work_does(queue: Queue, make_job: Make) -> None:
    """A batch's time counts once, and the time between two batches not at all."""
    for i in range(8):
        await queue.submit(make_job(str(i)))
    for batch in (range(4), range(4, 8)):
        await claim(queue, "w", MODEL, 4, 0)
        await pass_time(queue, 40)
        for job_id in batch:
            assert await queue.finish("w", str(job_id), RESULT)
        await pass_time(queue, 40)
    [found] = await queue.loads()
    assert found.work_per_s == pytest.approx(8 * WORK / (2 * 40), rel=0.05)


async def test_a_failed_job_is_no_measure(queue: Queue, make_job: Make) -> None:
    await queue.submit(make_job("a"))
    await claim(queue, "w", MODEL, 1, 0)
    await queue.cancel("a")
    assert (await queue.loads())[0].work_per_s is None


async def test_the_measure_follows_a_change(queue: Queue, make_job: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("app.queue.queue.RATE_FADES_MS", 5000)
    speeds = []
    for number, work_s in enumerate((40, 40, 10, 10, 10)):
        await queue.submit(make_job(str(number)))
        await claim(queue, "w", MODEL, 1, 0)
        await pass_time(queue, work_s)
        await queue.finish("w", str(number), RESULT)
        speeds.append((await queue.loads())[0].work_per_s or 0)
    assert speeds[-1] > 2 * speeds[1]


async def test_a_full_queue_says_when_its_work_will_be_done(
    settings: Settings, make_job: Make, connect: Connect
) -> None:
    changed = settings.model_copy(update={"queue_limit_per_model": 20, "queue_limit": 23})
    queue = connect(changed)
    await queue.registry.announce("w", [MODEL, "other"], 30)
    for name, model, takes_s in (("first", MODEL, 3), ("quick", "other", 0.1)):
        await queue.submit(make_job(name, model=model))
        await claim(queue, "w", model, 1, 0)
        await pass_time(queue, takes_s)
        await queue.finish("w", name, RESULT)
    await queue.submit(make_job("short", model="other"))  # a short queue, and none of this one's concern
    for i in range(20):
        await queue.submit(make_job(str(i)))
    found = next(each for each in await queue.loads() if each.model == MODEL)
    assert found.wait_s is not None
    with pytest.raises(QueueFull, match=f"the queue of {MODEL} is full") as refused:
        await queue.submit(make_job("more"))
    assert refused.value.retry_after_s == round(found.wait_s + 0.5)
    assert refused.value.retry_after_s >= 20 * 3
    for name in "ab":
        await queue.submit(make_job(name, model="other"))
    with pytest.raises(QueueFull, match="the queue is full"):
        await queue.submit(make_job("c", model="other"))
