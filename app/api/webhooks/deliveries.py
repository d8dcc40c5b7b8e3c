"""Takes the deliveries that are due from the schedule and makes them; every API process does so."""

from __future__ import annotations

import asyncio
import json
import random
from collections import Counter
from contextlib import suppress
from datetime import UTC, datetime

from redis.exceptions import RedisError

from app.api.responses.job import job_view
from app.api.webhooks.sender import Outcome, Sender
from app.artifacts.signed_urls import Links
from app.asyncio_utils import cancel_and_wait
from app.logs import Log
from app.queue.queue import Queue
from app.queue.webhooks import Delivery
from app.settings import Settings

__all__ = ["Deliveries"]

#: Deliveries under way, of all tenants; one tenant alone gets half of them.
AT_ONCE = 64
LOOK_S = 5.0  # at the latest; a delivery that becomes due is heard of
REDIS_RETRY_S = 1.0
LEAVE_S = 2.0  # for those under way when the process ends; what is cut off is made again by another
SLOWER, SLOWEST_S, JITTER = 4.0, 3600.0, 0.2  # each delay is so many times the one before, at most so long, ± a fifth
_log = Log("webhooks")


class Deliveries:
    """What a caller can rely on: the event that ends a job is told until it is heard, at most
    settings.webhook_attempts times; every other event is tried once.
    """

    def __init__(self, queue: Queue, settings: Settings, links: Links) -> None:
        self._queue = queue
        self._settings = settings
        self._links = links.below(settings.public_url or "")  # the receiver may know no other address of this API
        self._sender = Sender(settings)
        self._under_way: dict[asyncio.Task[None], str] = {}  # and the tenant
        self._task = asyncio.create_task(self._run(), name="webhooks")

    async def close(self) -> None:
        """Begin no more, and leave those that take too long."""
        await cancel_and_wait(self._task)
        if self._under_way:
            await asyncio.wait(self._under_way, timeout=LEAVE_S)
        for task in list(self._under_way):
            await cancel_and_wait(task)
        await self._sender.close()

    async def _run(self) -> None:
        async with self._queue.webhooks.watch_due() as due:
            while True:
                wait_s = LOOK_S
                try:
                    taken = Counter(self._under_way.values())
                    claimed, next_s = await self._queue.webhooks.claim(AT_ONCE, taken)
                    wait_s = LOOK_S if next_s is None else min(LOOK_S, next_s)
                    for delivery in claimed:
                        task = asyncio.create_task(self._deliver(delivery), name="webhook")
                        self._under_way[task] = delivery.job.tenant
                        task.add_done_callback(self._under_way.pop)
                        task.add_done_callback(lambda _: due.set())
                except RedisError as error:
                    _log.warning("redis_away", error=type(error).__name__)
                    wait_s = REDIS_RETRY_S
                await due.within(wait_s)

    async def _deliver(self, delivery: Delivery) -> None:
        assert delivery.job.webhook is not None
        outcome, status = await self._sender.send(
            delivery.job.webhook.url, delivery.message_id, _body(delivery, self._links)
        )
        again = (
            outcome.worth_another_try
            and delivery.event.is_terminal
            and delivery.tries < self._settings.webhook_attempts
        )
        _log.info(
            "webhook_sent" if outcome is Outcome.DELIVERED else "webhook_failed",
            job=delivery.job.id, type=delivery.event, outcome=outcome, status=status, tries=delivery.tries,
            again=again,
        )  # fmt: skip
        with suppress(RedisError):  # then it is made again, once its claim has ended
            if again:
                await self._queue.webhooks.retry(delivery, self._delay_s(delivery.tries))
            else:
                await self._queue.webhooks.finish(delivery)

    def _delay_s(self, tries: int) -> float:
        delay_s = min(SLOWEST_S, self._settings.webhook_retry_s * SLOWER ** (tries - 1))
        return delay_s * random.uniform(1 - JITTER, 1 + JITTER)  # noqa: S311 - nobody gains by foreseeing it


def _body(delivery: Delivery, links: Links) -> str:
    """Returns the job as it stands now, under the event that is told."""
    at = datetime.fromtimestamp(delivery.at, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
    said = {
        "type": f"job.{delivery.event}",
        "timestamp": at,
        "data": job_view(delivery.job, links).model_dump(mode="json"),
    }
    return json.dumps(said)
