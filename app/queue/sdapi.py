"""State of a tenant for the routes of /sdapi/v1: the chosen model, and the unfinished jobs."""

from __future__ import annotations

from app.queue.scripts import Scripts

__all__ = ["SdapiState"]

#: A job is listed for at most this long, since a process that dies cannot drop it.
LISTED_MS = 3_600_000


class SdapiState:
    """Raises redis.exceptions.RedisError if the server cannot be reached."""

    def __init__(self, scripts: Scripts) -> None:
        self._scripts = scripts

    async def model(self, tenant: str) -> str | None:
        """Returns the id of the model that the tenant has chosen; None for the default."""
        return str(chosen) if (chosen := await self._scripts.run("sdapi_choose", tenant=tenant)) else None

    async def choose(self, tenant: str, model: str) -> None:
        """Remembers the model for the tenant's later requests that name none."""
        await self._scripts.run("sdapi_choose", tenant=tenant, model=model)

    async def jobs(self, tenant: str) -> list[str]:
        """Returns the ids of the tenant's listed jobs, the oldest first."""
        return [str(job_id) for job_id in await self._scripts.run("sdapi_track", tenant=tenant)]

    async def add(self, tenant: str, job_id: str) -> None:
        """Lists a job."""
        await self._scripts.run("sdapi_track", tenant=tenant, add=job_id, ttl_ms=LISTED_MS)

    async def drop(self, tenant: str, job_id: str) -> None:
        """Takes a job from the list."""
        await self._scripts.run("sdapi_track", tenant=tenant, drop=job_id)
