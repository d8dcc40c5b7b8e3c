"""Reading, planning and claiming together, on a real queue."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import replace
from time import monotonic
from typing import Any

import pytest

from app.jobs import Job, Priority
from app.queue.queue import Queue
from app.queue.waiting import Turns
from app.settings import Settings
from app.worker.claim import Claimed, claim, rules
from app.worker.planner import Rules, StopReason
from tests.claiming import PICTURE

MODEL = "shapes-flux"
BUDGETS = {MODEL: 4 * PICTURE}
AT_ONCE = Rules(window_ms=0, oldest_wait_ms=60_000)
PATIENT = Rules(window_ms=600_000, oldest_wait_ms=600_000)
Make = Callable[..., Job]


def ids(claimed: Claimed | None) -> list[str]:
    assert claimed is not None
    return [job.id for job in claimed.jobs]


def test_the_rules_are_the_settings(settings: Settings) -> None:
    changed = settings.model_copy(update={"batch_window_ms": 7, "oldest_wait_s": 1.5})
    assert rules(changed) == Rules(window_ms=7, oldest_wait_ms=1500)


async def test_guidance_values_share_a_batch_and_cfg_does_not(queue: Queue, make_job: Make) -> None:
    for name, scale in (("a", 2.0), ("b", 1.0), ("c", 7.5), ("d", 0.0), ("e", 3.0)):
        await queue.submit(make_job(name, guidance_scale=scale))
    assert ids(await claim(queue, "w", BUDGETS, AT_ONCE, 0)) == ["a", "c"]  # each counts twice: the budget is full
    assert ids(await claim(queue, "w", BUDGETS, AT_ONCE, 0)) == ["b", "d"]
    assert ids(await claim(queue, "w", BUDGETS, AT_ONCE, 0)) == ["e"]


@pytest.mark.parametrize(
    "changes", [{"width": 80}, {"height": 80}, {"num_inference_steps": 3}, {"guidance_scale": 2.0}, {"num_frames": 5}]
)
async def test_what_changes_the_computations_shape_is_apart(
    queue: Queue, make_job: Make, changes: dict[str, Any]
) -> None:
    await queue.submit(make_job("a"))
    await queue.submit(make_job("b", **changes))
    assert len(ids(await claim(queue, "w", BUDGETS, AT_ONCE, 0))) == 1


async def test_priorities_and_tenants_reach_the_planner(queue: Queue, make_job: Make) -> None:
    for i in range(6):
        await queue.submit(make_job(f"flood{i}"))
    await queue.submit(replace(make_job("high"), priority=Priority.HIGH))
    await queue.submit(replace(make_job("other"), tenant="other"))
    assert ids(await claim(queue, "w", BUDGETS, AT_ONCE, 0)) == ["high", "other", "flood0", "flood1"]


async def test_workers_take_turns_together(queue: Queue, make_job: Make) -> None:
    """The memory is the queue's: a second worker goes on where the first has left."""
    for i in range(8):
        await queue.submit(make_job(f"a{i}"))
    for i in range(4):
        await queue.submit(make_job(f"b{i}", width=80))
    first = ids(await claim(queue, "v", BUDGETS, AT_ONCE, 0))
    second = ids(await claim(queue, "w", BUDGETS, AT_ONCE, 0))
    assert (first[0], second[0]) == ("a0", "b0")


async def test_a_batch_with_room_is_held_open_for_its_window(queue: Queue, make_job: Make) -> None:
    await queue.submit(make_job("a"))
    claiming = asyncio.create_task(claim(queue, "w", BUDGETS, Rules(2000, 60_000), 30))
    await asyncio.sleep(0.2)
    assert not claiming.done()
    await queue.submit(make_job("b"))
    claimed = await claiming
    assert ids(claimed) == ["a", "b"]
    assert claimed is not None
    assert claimed.stop is StopReason.WINDOW


@pytest.mark.parametrize(("more", "stop"), [([{}, {}, {}], StopReason.FULL), ([{"width": 80}], StopReason.NO_MORE)])
async def test_a_window_ends_early_when_there_is_no_more_to_wait_for(
    queue: Queue, make_job: Make, more: Sequence[dict[str, Any]], stop: StopReason
) -> None:
    await queue.submit(make_job("a"))
    claiming = asyncio.create_task(claim(queue, "w", BUDGETS, PATIENT, 600))
    await asyncio.sleep(0.1)
    for number, changes in enumerate(more):
        await queue.submit(make_job(f"more{number}", **changes))
    claimed = await claiming
    assert claimed is not None
    assert claimed.stop is stop


async def test_a_window_does_not_hold_up_another_model(queue: Queue, make_job: Make) -> None:
    await queue.submit(make_job("a"))
    await queue.submit(make_job("b", model="other", n=4))
    assert ids(await claim(queue, "w", {**BUDGETS, "other": 4 * PICTURE}, PATIENT, 600)) == ["b"]


async def test_a_claim_ends_at_its_timeout_with_a_window_open(queue: Queue, make_job: Make) -> None:
    await queue.submit(make_job("a"))
    begun = monotonic()
    assert await claim(queue, "w", BUDGETS, PATIENT, 0.1) is None
    assert monotonic() - begun < 60


async def test_a_worker_that_was_beaten_to_all_of_it_plans_again(
    queue: Queue, make_job: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    await queue.submit(make_job("a", width=80))
    await queue.submit(make_job("b"))
    look, beaten = queue.waiting, False

    async def late(model: str) -> Any:
        nonlocal beaten
        waiting = await look(model)
        if not beaten:
            beaten = True
            await queue.claim("quicker", MODEL, ["a"], Turns())
        return waiting

    monkeypatch.setattr(queue, "waiting", late)
    assert ids(await claim(queue, "w", BUDGETS, AT_ONCE, 0)) == ["b"]
