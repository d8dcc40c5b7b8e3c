"""An API key as it is stored, and how a new one is made."""

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
    """What a key is good for."""

    GENERATE = "generate"  # ask for work, cancel and delete it
    READ = "read"  # see one's own jobs and their results, the models and the queue
    ADMIN = "admin"  # what concerns all tenants: the metrics


class ApiKey(BaseModel):
    """A key by its hash. An absent limit is none."""

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
    #: Of requests that do not say it; None: as NAG_STRICT says.
    strict: bool | None = None


#: What each limit counts, of one key, in the whole service.
LIMITS = {
    "requests_per_minute": "requests in a minute that need the scope generate",
    "reads_per_minute": "other requests in a minute",
    "requests_at_once": "requests under way, those that wait for a job or listen to one included",
    "pending_jobs": "jobs that were accepted and have not ended",
}


def new_secret() -> str:
    """256 random bits: a hash of so many needs neither salt nor stretching."""
    return f"nag_{secrets.token_urlsafe(32)}"


def digest(secret: str) -> str:
    return hashlib.sha256(secret.encode()).hexdigest()
