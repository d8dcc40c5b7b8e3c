"""Limits the requests of one API key per minute and at once. Runs inside `AuthMiddleware`, which finds the key."""

from __future__ import annotations

from contextlib import AsyncExitStack

from redis.exceptions import RedisError
from starlette.datastructures import MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app.api.middleware.auth import Caller, needed
from app.api.middleware.early_response import refuse
from app.auth import ApiKey
from app.auth import Scope as KeyScope
from app.errors import RateLimitExceeded
from app.queue.connection import translate_redis_error
from app.queue.limits import Rate
from app.queue.queue import Queue

__all__ = ["RateLimitMiddleware"]


class RateLimitMiddleware:
    """Answers 429 beyond a limit. Headers of each response say how much of the rate is left, if the key has one."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        caller = scope.get("state", {}).get("caller")
        if not isinstance(caller, Caller) or caller.key is None:
            return await self.app(scope, receive, send)
        queue: Queue = scope["app"].state.service.queue
        async with AsyncExitStack() as held:
            try:
                if (rate := await _take(queue, caller.key, scope)) is not None:
                    send = _telling(rate, send)
                    _check(rate)
                if caller.key.requests_at_once is not None:
                    await held.enter_async_context(queue.concurrency.hold(caller.key.id, caller.key.requests_at_once))
                    send = _freeing(held, send)
            except RateLimitExceeded as error:
                return await refuse(error, scope, receive, send)
            except RedisError as exc:
                return await refuse(translate_redis_error(exc), scope, receive, send)
            return await self.app(scope, receive, send)


async def _take(queue: Queue, key: ApiKey, scope: Scope) -> Rate | None:
    generates = needed(scope["method"], scope["path"]) is KeyScope.GENERATE
    most = key.requests_per_minute if generates else key.reads_per_minute
    return None if most is None else await queue.rate_limiter.take(key.id, "requests" if generates else "reads", most)


def _check(rate: Rate) -> None:
    if not rate.allowed:
        raise RateLimitExceeded(
            f"Rate limit exceeded: {rate.limit} requests per minute for this API key", retry_after_s=rate.reset_s
        )


def _freeing(held: AsyncExitStack, send: Send) -> Send:
    """Gives the slot back before the answer's last byte: who has that may ask again at once."""

    async def send_and_free(message: Message) -> None:
        if message["type"] == "http.response.body" and not message.get("more_body", False):
            await held.aclose()
        await send(message)

    return send_and_free


def _telling(rate: Rate, send: Send) -> Send:
    async def send_with_rate(message: Message) -> None:
        if message["type"] == "http.response.start":
            headers = MutableHeaders(scope=message)
            headers["x-ratelimit-limit-requests"] = str(rate.limit)
            headers["x-ratelimit-remaining-requests"] = str(rate.remaining)
            headers["x-ratelimit-reset-requests"] = f"{rate.reset_s}s"
        await send(message)

    return send_with_rate
