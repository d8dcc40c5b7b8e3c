"""Translates redis-py's errors into answers: the queue cannot be reached, or it refuses, and why."""

from __future__ import annotations

from redis.exceptions import (
    AuthenticationError,
    BusyLoadingError,
    NoPermissionError,
    OutOfMemoryError,
    ReadOnlyError,
    RedisError,
)

from app.errors import Unavailable
from app.logs import Log

__all__ = ["unavailable"]

UNREACHABLE_RETRY_S = 2
REFUSED_RETRY_S = 10  # somebody has to mend it, or jobs have to end
REFUSALS = {
    OutOfMemoryError: "the queue's Redis has reached its maxmemory and takes no more jobs",
    ReadOnlyError: "the queue's Redis is a replica and takes no jobs; a failover may be under way",
    BusyLoadingError: "the queue's Redis is still reading its data from disk",
    NoPermissionError: "the queue's Redis does not permit this user a command that the service needs",
    AuthenticationError: "the queue's Redis does not accept the service's user or password",
}
#: By the error code that the server's message begins with, where redis-py has no class for it.
REFUSALS_BY_CODE = {
    "MISCONF": "the queue's Redis cannot write to its disk and takes no jobs until it can",
    "NOREPLICAS": "the queue's Redis has too few replicas and takes no jobs until it has enough",
}
_log = Log("queue")


def unavailable(error: RedisError) -> Unavailable:
    """The 503 that a RedisError is to a caller; the operator finds the server's own words in the log."""
    _log.error("queue_unavailable", error=type(error).__name__, message=error)
    refusal = REFUSALS.get(type(error)) or REFUSALS_BY_CODE.get(str(error).partition(" ")[0])
    if refusal is None:
        return Unavailable("the queue cannot be reached", code="queue_unreachable", retry_after_s=UNREACHABLE_RETRY_S)
    return Unavailable(refusal, code="queue_refused", retry_after_s=REFUSED_RETRY_S)
