"""The schedule of webhooks: the scripts fill it with each transition, and the API processes claim from it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from time import time

from app.asyncio_utils import Signal
from app.jobs import EventType, Job
from app.queue.events import Events
from app.queue.keys import Keys
from app.queue.scripts import Scripts
from app.queue.serialization import job_from_fields, pairs

__all__ = ["Delivery", "Webhooks"]

LEASE_S = 60.0  # well above the time of one delivery; after it another process repeats the delivery


@dataclass(frozen=True)
class Delivery:
    """One event to be sent to the URL of the job's webhook; `at` is when it happened."""

    entry: str  # in the schedule
    job: Job
    event: EventType
    message_id: str  # the same at every try
    at: float
    tries: int  # this one included


class Webhooks:
    def __init__(self, scripts: Scripts, events: Events, keys: Keys) -> None:
        self._scripts = scripts
        self._keys = keys
        self._events = events

    def watch_due(self) -> AbstractAsyncContextManager[Signal]:
        """Sets a signal when a delivery is put on the schedule."""
        return self._events.watch(self._keys.NOTICED, ["due"])

    async def claim(self, places: int, taken: Mapping[str, int]) -> tuple[Sequence[Delivery], float | None]:
        """Claims due deliveries for LEASE_S; also returns the seconds until the next one is due, or None.

        Tenants share the `places` of this process, of which each already has those in `taken`. A delivery whose job is
        no longer kept is dropped.
        """
        wait_ms, *claimed = await self._scripts.run(
            "webhook_claim", lease_ms=round(LEASE_S * 1000), places=places, taken=dict(taken)
        )
        deliveries = [_delivery(entry, int(tries), job_from_fields(pairs(fields))) for entry, tries, fields in claimed]
        return deliveries, max(0, int(wait_ms)) / 1000 if wait_ms else None

    async def finish(self, delivery: Delivery) -> None:
        """Removes a delivery from the schedule."""
        await self._scripts.run("webhook_end", tenant=delivery.job.tenant, entry=delivery.entry)

    async def retry(self, delivery: Delivery, delay_s: float) -> None:
        """Makes a delivery due again after this delay."""
        await self._scripts.run(
            "webhook_end", tenant=delivery.job.tenant, entry=delivery.entry, delay_ms=round(delay_s * 1000)
        )


def _delivery(entry: str, tries: int, job: Job) -> Delivery:
    _, kind, event_id = entry.split(" ")
    event = EventType(kind)
    if event is EventType.PROGRESS:  # a job has at most one on the schedule, for its latest step
        event_id = f"{job.attempts}-{job.step}"
        at = time()
    else:
        at = int(event_id.partition("-")[0]) / 1000
    return Delivery(entry, job, event, f"msg_{job.id}_{event}_{event_id}", at, tries)
