"""Opens the connections to Redis or Valkey: one server, a socket, or the primary that Sentinels name."""

from __future__ import annotations

from typing import Any

from redis.asyncio import BlockingConnectionPool, Connection, Redis, SSLConnection, UnixDomainSocketConnection
from redis.asyncio.retry import Retry
from redis.asyncio.sentinel import Sentinel, SentinelConnectionPool
from redis.backoff import ExponentialWithJitterBackoff
from redis.exceptions import ConnectionError as ConnectionLost
from redis.exceptions import ReadOnlyError

from app.queue.address import Address

__all__ = ["open_redis"]

CONNECTIONS = 64  # most to Redis per process; a caller beyond them waits until one is free
#: A command is sent again over a new connection when its own was closed, or led to a server that has become a replica.
#: So every script can run twice and must then answer as if it had run once. A timeout is not tried again: the server
#: may still be at the first one.
RETRIES, RETRY_FIRST_S, RETRY_MOST_S = 3, 0.05, 0.5


class _SentinelPool(SentinelConnectionPool, BlockingConnectionPool):
    """Waits for a free connection, and closes the Sentinels' connections with its own."""

    async def aclose(self) -> None:
        await super().aclose()
        await self.sentinel_manager.aclose()


def open_redis(address: Address) -> Redis:
    """The client of an address. It connects at its first command."""
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
        own |= {**address.sentinel_options, "retry": Retry(backoff, 0)}  # the next one is asked instead
        sentinel = Sentinel(address.hosts, sentinel_kwargs=own)  # type: ignore[no-untyped-call]
        pool = _SentinelPool(address.service, sentinel, **options)  # type: ignore[no-untyped-call]
        return Redis.from_pool(pool)
    if address.path:
        kind: dict[str, Any] = {"connection_class": UnixDomainSocketConnection, "path": address.path}
    else:
        [(host, port)] = address.hosts
        kind = {"connection_class": SSLConnection if address.is_tls else Connection, "host": host, "port": port}
    return Redis.from_pool(BlockingConnectionPool(**kind, **options))
