"""A tenant's jobs, page by page."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from redis.asyncio import Redis

from app.errors import InvalidParameter
from app.jobs import Job, JobStatus
from app.queue.codec import job_from_fields, pairs
from app.queue.keys import Keys
from app.queue.lua import Scripts

__all__ = ["Page", "page"]

LOOKED_AT_A_CALL = 500  # entries; bounds the time one script holds the server


@dataclass(frozen=True)
class Page:
    """`has_more` says whether there are others behind them."""

    jobs: Sequence[Job]
    has_more: bool


async def page(
    redis: Redis, scripts: Scripts, keys: Keys, tenant: str, limit: int,
    *, after: str | None, status: JobStatus | None, models: Iterable[str] | None, oldest_first: bool,
) -> Page:  # fmt: skip
    """At most `limit` jobs behind the one called `after`. Raises InvalidParameter where the tenant has none such."""
    place = "-inf" if oldest_first else "+inf"
    if after is not None:
        score = await redis.zscore(keys.owned(tenant), after)
        if score is None:
            raise InvalidParameter(f"after: no job {after!r}", param="after")
        place = f"({score:.0f}"
    chosen = "" if models is None else json.dumps(list(models))
    found: list[Job] = []
    while place and len(found) <= limit:
        place, *jobs = await scripts.run(
            "page", tenant, place, status or "", chosen, limit + 1 - len(found), LOOKED_AT_A_CALL,
            "oldest" if oldest_first else "newest",
        )  # fmt: skip
        found += [job_from_fields(pairs(fields)) for fields in jobs]
    return Page(found[:limit], len(found) > limit)
