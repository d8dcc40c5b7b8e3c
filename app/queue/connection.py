"""Connects to Redis or Valkey, checks its setup, and translates its errors into answers."""

from __future__ import annotations

from typing import Any

from redis.asyncio import BlockingConnectionPool, Connection, Redis, SSLConnection, UnixDomainSocketConnection
from redis.asyncio.retry import Retry
from redis.asyncio.sentinel import Sentinel, SentinelConnectionPool
from redis.backoff import ExponentialWithJitterBackoff
from redis.exceptions import (
    AuthenticationError,
    BusyLoadingError,
    NoPermissionError,
    OutOfMemoryError,
    ReadOnlyError,
    RedisError,
)
from redis.exceptions import ConnectionError as ConnectionLost

from app.errors import CommandError, Unavailable
from app.logs import Log
from app.queue.address import Address
from app.queue.keys import Keys
from app.queue.scripts import Scripts

__all__ = ["RequirementError", "check_requirements", "may_evict", "open_redis", "translate_redis_error"]

CONNECTIONS = 64  # most to Redis per process; a caller beyond them waits until one is free
#: A command is sent again over a new connection when its own was closed, or led to a server that has become a replica.
#: So every script can run twice and must then answer as if it had run once. A timeout is not tried again: the server
#: may still be at the first one.
RETRIES, RETRY_FIRST_S, RETRY_MOST_S = 3, 0.05, 0.5

#: In addition to what scripts call by name: what Python sends, what a script chooses as it runs, what `limits` uses.
KEY_COMMANDS = ("EXPIRE", "LINDEX", "LPUSH", "LTRIM", "XRANGE", "ZCARD", "ZRANGEBYSCORE", "ZREVRANGEBYSCORE", "ZSCORE")
CHANNEL_COMMANDS = ("PUBLISH", "SUBSCRIBE", "UNSUBSCRIBE")
OTHER_COMMANDS = ("INFO", "PING", "TIME")

UNREACHABLE_RETRY_S = 2
REFUSED_RETRY_S = 10  # an operator has to repair it, or jobs have to end
REFUSALS = {
    OutOfMemoryError: "the queue's Redis has reached its maxmemory and takes no more jobs",
    ReadOnlyError: "the queue's Redis is a replica and takes no jobs; a failover may be under way",
    BusyLoadingError: "the queue's Redis is still reading its data from disk",
    NoPermissionError: "the queue's Redis does not permit this user a command that the service needs",
    AuthenticationError: "the queue's Redis does not accept the service's user or password",
}
#: By the error code that the server's message begins with, for errors without a class in redis-py.
REFUSALS_BY_CODE = {
    "MISCONF": "the queue's Redis cannot write to its disk and takes no jobs until it can",
    "NOREPLICAS": "the queue's Redis has too few replicas and takes no jobs until it has enough",
}
_log = Log("queue")


class RequirementError(CommandError):
    """Redis cannot serve as the queue as it is set up."""


class _SentinelPool(SentinelConnectionPool, BlockingConnectionPool):
    """Waits for a free connection, and closes the Sentinels' connections with its own."""

    async def aclose(self) -> None:
        await super().aclose()
        await self.sentinel_manager.aclose()


def open_redis(address: Address) -> Redis:
    """Returns the client of a server, of a socket, or of the primary that Sentinels name.

    It connects at its first command.
    """
    backoff = ExponentialWithJitterBackoff(base=RETRY_FIRST_S, cap=RETRY_MOST_S)
    options: dict[str, Any] = {
        **address.options,
        "decode_responses": True,
        "max_connections": CONNECTIONS,
        "retry": Retry(backoff, RETRIES, (ConnectionLost, ReadOnlyError)),
    }
    if address.service:
        options |= {"ssl": True} if address.is_tls else {}
        own = {name: value for name, value in options.items() if name.startswith(("socket_", "ssl"))}
        own |= {**address.sentinel_options, "retry": Retry(backoff, 0)}  # the next Sentinel is asked instead
        sentinel = Sentinel(address.hosts, sentinel_kwargs=own)  # type: ignore[no-untyped-call]
        pool = _SentinelPool(address.service, sentinel, **options)  # type: ignore[no-untyped-call]
        return Redis.from_pool(pool)
    if address.path:
        kind: dict[str, Any] = {"connection_class": UnixDomainSocketConnection, "path": address.path}
    else:
        [(host, port)] = address.hosts
        kind = {"connection_class": SSLConnection if address.is_tls else Connection, "host": host, "port": port}
    return Redis.from_pool(BlockingConnectionPool(**kind, **options))


def may_evict(memory: dict[str, object]) -> bool:
    """Returns whether the server may drop keys when it is full. `memory` is its INFO section."""
    return memory["maxmemory_policy"] != "noeviction"


async def check_requirements(redis: Redis, scripts: Scripts, keys: Keys) -> None:
    """Raises RequirementError for rights that the Redis user lacks; warns if the server may evict keys.

    A server that cannot be reached now is no error: it is waited for later.
    """
    key, channel = keys.LEASES, keys.DONE
    patterns = f"keys ~{key.partition(':')[0]}:* and channels &{channel.partition(':')[0]}:*"
    commands = {
        *(f"{name} {key}" for name in {*scripts.commands, *KEY_COMMANDS} - {*CHANNEL_COMMANDS, *OTHER_COMMANDS}),
        *(f"{name} {channel}" for name in CHANNEL_COMMANDS),
        *OTHER_COMMANDS,
    }
    try:
        denied = await scripts.run("check_rights", commands=sorted(commands))
        if denied == ["unknown"]:
            raise RequirementError("Redis 7.0 or newer is needed, or Valkey")
        if denied:
            user = redis.connection_pool.connection_kwargs.get("username") or "default"
            raise RequirementError(
                f"the Redis user {user!r} lacks the rights to {', '.join(denied)}; grant them on {patterns}"
            )
        if may_evict(memory := await redis.info("memory")):
            _log.warning(
                "redis_may_evict",
                policy=memory["maxmemory_policy"],
                message="a full Redis drops jobs under this policy; set maxmemory-policy noeviction",
            )
    except (AuthenticationError, NoPermissionError) as error:
        raise RequirementError(f"Redis refuses this user: {error}; it needs {patterns}") from error
    except RedisError as error:
        _log.warning("redis_away", error=type(error).__name__, message=error)


def translate_redis_error(error: RedisError) -> Unavailable:
    """Returns the 503 answer for an error of redis-py, and logs the server's own message for the operator."""
    _log.error("queue_unavailable", error=type(error).__name__, message=error)
    refusal = REFUSALS.get(type(error)) or REFUSALS_BY_CODE.get(str(error).partition(" ")[0])
    if refusal is None:
        return Unavailable("the queue cannot be reached", code="queue_unreachable", retry_after_s=UNREACHABLE_RETRY_S)
    return Unavailable(refusal, code="queue_refused", retry_after_s=REFUSED_RETRY_S)
