"""Settings of the queue: Redis, limits, order, leases and retention."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field, NonNegativeFloat, PositiveFloat, PositiveInt, field_validator

from app.queue.address import parse_address
from app.settings.types import SettingsGroup

__all__ = ["QueueSettings"]


class QueueSettings(SettingsGroup):
    redis_url: Annotated[str | None, Field(repr=False)] = None
    """URL of Redis 7.0 or newer, or of Valkey. Default: `nag-server up` starts an embedded Valkey in NAG_DATA_DIR."""

    redis_namespace: Annotated[str, Field(pattern="^[A-Za-z0-9_.-]{1,64}$")] = "nag"
    """Prefix of every key and channel in Redis. Services that share a Redis need one each."""

    drain_s: NonNegativeFloat = 10.0
    """A worker that is stopped finishes the jobs that end within this time and returns the rest to the queue. An API
    that is stopped holds requests no longer than this.
    """

    oldest_wait_s: PositiveFloat = 30.0
    """A job that has waited longer than this goes before the other jobs of its tenant."""

    queue_limit: PositiveInt = 4000
    """Largest number of queued jobs of all models. Requests beyond it are answered 429."""

    queue_limit_per_model: PositiveInt = 1000
    """Largest number of queued jobs of one model. Requests beyond it are answered 429."""

    deadline_max_s: Annotated[float, Field(gt=0, le=31_536_000)] = 86_400.0
    """A job that is not done this long after its acceptance expires. A request may ask for less."""

    lease_s: PositiveFloat = 15.0
    """A job whose worker is silent for this long is queued again."""

    max_attempts: PositiveInt = 3
    """A job that this many workers have lost fails as `worker_lost`."""

    retention_s: PositiveFloat = 86_400.0
    """How long a finished job and its files are kept."""

    @field_validator("redis_url")
    @classmethod
    def _is_address(cls, value: str | None) -> str | None:
        if value is not None:
            parse_address(value)
        return value
