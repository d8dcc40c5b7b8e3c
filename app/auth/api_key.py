"""Stored API keys, and the creation of a new one."""

from __future__ import annotations

import hashlib
import secrets
from enum import StrEnum
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

__all__ = ["LIMITS", "ApiKey", "Scope", "digest", "new_secret"]

#: Safe in TOML, in a Redis key, in a log line and on a command line.
Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9_-]{1,64}$")]
Most = Annotated[int | None, Field(ge=1, le=1_000_000)]


class Scope(StrEnum):
    """What a key permits."""

    GENERATE = "generate"  # submit jobs, cancel and delete them
    READ = "read"  # the tenant's own jobs and their results, the models and the queue
    ADMIN = "admin"  # data of all tenants: the metrics


class ApiKey(BaseModel):
    """An API key, stored by its hash. Without a limit there is none."""

    # A key written where its hash belongs must not come back in an error message.
    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)

    id: Name
    tenant: Name
    sha256: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$", repr=False)]
    scopes: frozenset[Scope] = frozenset({Scope.GENERATE, Scope.READ})
    requests_per_minute: Most = None
    reads_per_minute: Most = None
    requests_at_once: Most = None
    pending_jobs: Most = None
    #: Whether requests without `strict` are strict; None: as NAG_STRICT says.
    strict: bool | None = None


#: What each limit counts for one key, in the whole service.
LIMITS = {
    "requests_per_minute": "requests per minute that need the scope generate",
    "reads_per_minute": "other requests per minute",
    "requests_at_once": "requests under way, including those that wait for a job or stream its events",
    "pending_jobs": "unfinished jobs",
}


def new_secret() -> str:
    """Returns a new key of 256 random bits. A hash of so many needs neither salt nor stretching."""
    return f"nag_{secrets.token_urlsafe(32)}"


def digest(secret: str) -> str:
    return hashlib.sha256(secret.encode()).hexdigest()
