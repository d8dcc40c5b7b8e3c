"""Checks what the service needs of its Redis: the user's rights, and that no key is evicted."""

from __future__ import annotations

from redis.asyncio import Redis
from redis.exceptions import AuthenticationError, NoPermissionError, RedisError

from app.logs import Log
from app.queue.keys import Keys
from app.queue.lua import Scripts

__all__ = ["RequirementError", "check_requirements", "may_evict"]

#: In addition to what scripts call by name: what Python sends, what a script chooses as it runs, what `limits` uses.
KEY_COMMANDS = ("EXPIRE", "LINDEX", "LPUSH", "LTRIM", "XRANGE", "ZCARD", "ZRANGEBYSCORE", "ZREVRANGEBYSCORE", "ZSCORE")
CHANNEL_COMMANDS = ("PUBLISH", "SUBSCRIBE", "UNSUBSCRIBE")
OTHER_COMMANDS = ("INFO", "PING", "TIME")
_log = Log("queue")


class RequirementError(Exception):
    """Redis cannot serve as the queue as it is set up; the message is one line that says what to do."""


def may_evict(memory: dict[str, object]) -> bool:
    """Whether the server's policy lets it drop keys when it is full. `memory` is its INFO section."""
    return memory["maxmemory_policy"] != "noeviction"


async def check_requirements(redis: Redis, scripts: Scripts, keys: Keys) -> None:
    """Raises RequirementError for rights that are missing; warns of eviction.

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
        denied = await scripts.run("rights", *sorted(commands))
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
