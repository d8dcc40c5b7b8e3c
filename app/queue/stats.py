"""Statistics of the queue: how long each model's queue is, and the metrics that the scripts count in Redis."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from redis.asyncio import Redis

from app.metrics.definitions import ALL, Kind
from app.metrics.service import LastError, QueueStats
from app.queue.connection import may_evict
from app.queue.scripts import Scripts
from app.queue.serialization import pairs

__all__ = ["QueueLoad", "read_loads", "read_stats", "retry_after_s"]

#: A client comes back neither in a hurry nor later than the SDKs will wait.
RETRY_MIN_S, RETRY_MAX_S = 1, 120
#: Without a measured speed.
RETRY_UNKNOWN_S = 10
KINDS = {metric.name: metric.kind for metric in ALL}


@dataclass(frozen=True)
class QueueLoad:
    """The work of one model, in the units of Generation.work; the speed is that of one worker at work."""

    model: str
    queued: int
    queued_work: int
    held_work: int  # in progress
    work_per_s: float | None  # as measured lately; None before the first result
    workers: int  # that hold the model now

    @property
    def wait_s(self) -> float | None:
        """The seconds that a job submitted now would wait: on average, half of the work in progress is done already.

        None if that cannot be known: nothing was measured, or no worker holds the model.
        """
        if not self.work_per_s or not self.workers:
            return None
        return (self.queued_work + self.held_work / 2) / (self.work_per_s * self.workers)


def retry_after_s(loads: Iterable[QueueLoad]) -> int:
    """Returns when to come back to a full queue: once the first of these models' queues is done.

    Until then the workers have enough to do, and from then on there is room.
    """
    waits_s = [wait_s for load in loads if load.queued and (wait_s := load.wait_s) is not None]
    if not waits_s:
        return RETRY_UNKNOWN_S
    return max(RETRY_MIN_S, min(RETRY_MAX_S, round(min(waits_s) + 0.5)))


async def read_loads(scripts: Scripts, warm: list[str]) -> list[QueueLoad]:
    """Reads the load of each model that ever had a queue. `warm` names a model once for each worker that holds it."""
    return [
        QueueLoad(
            model=model,
            queued=int(queued),
            queued_work=int(queued_work),
            held_work=int(held_work),
            work_per_s=float(work) / float(busy_ms) * 1000 if float(busy_ms) > 0 else None,
            workers=warm.count(model),
        )
        for model, queued, queued_work, held_work, work, busy_ms in await scripts.run("read_loads")
    ]


async def read_stats(scripts: Scripts, redis: Redis) -> QueueStats:
    """Reads the metrics that the scripts count and the state of the queues. Raises redis.exceptions.RedisError."""
    answer = json.loads(await scripts.run("read_stats"))
    counters: dict[str, dict[tuple[str, ...], float]] = defaultdict(dict)
    histograms: dict[str, dict[tuple[str, ...], dict[str, float]]] = defaultdict(lambda: defaultdict(dict))
    for field, value in pairs(answer["counts"] or []).items():
        name, *labels = json.loads(field)
        if KINDS.get(name) is Kind.HISTOGRAM:
            *labels, bucket = labels
            histograms[name][tuple(labels)][bucket] = float(value)
        elif name in KINDS:  # another version may count metrics that this one does not have
            counters[name][tuple(labels)] = float(value)
    memory: dict[str, Any] = await redis.info("memory")
    return QueueStats(
        counters=counters,
        histograms=histograms,
        waiting={(model, priority): int(n) for model, priority, n, _ in answer["queues"]},
        oldest_s={(model, priority): int(age_ms) / 1000 for model, priority, _, age_ms in answer["queues"]},
        running=answer["running"] or {},
        held=answer["held"] or {},
        last_errors=[LastError(int(at_ms) / 1000, *rest) for at_ms, *rest in answer["errors"] or ()],
        dead=int(answer["dead"]),
        redis_bytes=int(memory["used_memory"]),
        redis_max_bytes=int(memory["maxmemory"] or memory["total_system_memory"]),
        redis_may_evict=may_evict(memory),
    )
