"""The counts that the scripts make in Redis, and how the queues stand."""

from __future__ import annotations

import json
from collections import defaultdict
from typing import Any

from redis.asyncio import Redis

from app.metrics.definitions import ALL, Kind
from app.metrics.service import LastError, Measures
from app.queue.codec import pairs
from app.queue.lua import Scripts
from app.queue.requirements import may_evict

__all__ = ["read"]

KINDS = {metric.name: metric.kind for metric in ALL}


async def read(scripts: Scripts, redis: Redis) -> Measures:
    """As they are now. Raises redis.exceptions.RedisError."""
    answer = json.loads(await scripts.run("measure"))
    counters: dict[str, dict[tuple[str, ...], float]] = defaultdict(dict)
    histograms: dict[str, dict[tuple[str, ...], dict[str, float]]] = defaultdict(lambda: defaultdict(dict))
    for field, value in pairs(answer["counts"] or []).items():
        name, *labels = json.loads(field)
        if KINDS.get(name) is Kind.HISTOGRAM:
            *labels, bucket = labels
            histograms[name][tuple(labels)][bucket] = float(value)
        elif name in KINDS:  # not, where an older release counted what this one does not
            counters[name][tuple(labels)] = float(value)
    memory: dict[str, Any] = await redis.info("memory")
    return Measures(
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
