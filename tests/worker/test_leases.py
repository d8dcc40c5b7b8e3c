"""Heartbeats of the jobs that a worker holds."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any, cast

from app.queue.queue import Queue
from app.worker.jobs.leases import Leases
from app.worker.protocol import JobControl


class Beats:
    """A queue that notes the heartbeats that it gets, and has taken away the jobs `lost`."""

    def __init__(self, *lost: str) -> None:
        self.beats: list[dict[str, int]] = []
        self._lost = lost

    @asynccontextmanager
    async def watch_revocations(self, *_: object) -> AsyncIterator[None]:
        yield

    async def heartbeat(self, _: str, steps: Mapping[str, int]) -> list[str]:
        self.beats.append(dict(steps))
        return [job_id for job_id in steps if job_id in self._lost]


async def test_a_job_that_is_done_renews_its_own_lease_alone() -> None:
    queue: Any = Beats("b")
    leases = Leases("w", 30.0, cast(Queue, queue))
    controls = {job_id: JobControl(step=step) for step, job_id in enumerate("abc")}
    async with AsyncExitStack() as stack:
        for job_id, control in controls.items():
            await stack.enter_async_context(leases.hold(job_id, control))
        await leases.renew("c")
        await leases.renew("b")
        await leases.renew("b")  # it is lost, so there is nothing to renew
        await leases.renew()
    assert queue.beats == [{"c": 2}, {"b": 1}, {"a": 0, "c": 2}]
    assert [control.is_cancelled for control in controls.values()] == [False, True, False]
