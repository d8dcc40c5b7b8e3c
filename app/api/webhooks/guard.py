"""Restricts the addresses that a webhook may reach.

The check is made as the connection is opened, because a name may resolve to another address at each look-up.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address
from socket import SOCK_STREAM, getaddrinfo
from typing import Any

import httpcore

__all__ = ["Address", "GuardedBackend", "Network", "RefusedAddress", "allowed"]

Address = IPv4Address | IPv6Address
Network = IPv4Network | IPv6Network

GLOBAL_UNICAST = IPv6Network("2000::/3")
NAT64 = IPv6Network("64:ff9b::/96")
SIX_TO_FOUR = IPv6Network("2002::/16")
ADDRESSES_TRIED = 3
#: At once. A resolver that hangs holds a thread for longer than its delivery lasts, and a tenant may name many such.
LOOKUPS = 128


class RefusedAddress(Exception):
    """The host is, or resolves to, an address that no webhook may reach."""


def allowed(address: Address, networks: Iterable[Network]) -> bool:
    """Whether it is on the open internet, or in one of the networks that the operator named."""
    address = _meant(address)
    return _is_public(address) or any(address in network for network in networks)


class GuardedBackend(httpcore.AsyncNetworkBackend):
    """Connects to the addresses it has checked, not to the name."""

    def __init__(self, networks: Iterable[Network]) -> None:
        self._networks = tuple(networks)
        self._connecting = httpcore.AnyIOBackend()
        self._resolving = ThreadPoolExecutor(LOOKUPS, thread_name_prefix="webhook-dns")

    async def connect_tcp(
        self, host: str, port: int, timeout: float | None = None,  # noqa: ASYNC109 - httpcore's contract
        local_address: str | None = None, socket_options: Iterable[Any] | None = None,
    ) -> httpcore.AsyncNetworkStream:  # fmt: skip
        """Raises RefusedAddress if one of the host's addresses is not allowed, httpcore.ConnectError."""
        addresses = await self._addresses(host, port)
        if not all(allowed(each, self._networks) for each in addresses):
            raise RefusedAddress
        failure: Exception = httpcore.ConnectError("no address")
        for address in addresses[:ADDRESSES_TRIED]:
            try:
                return await self._connecting.connect_tcp(str(address), port, timeout, local_address, socket_options)
            except (httpcore.ConnectError, httpcore.ConnectTimeout) as error:
                failure = error
        raise failure

    async def connect_unix_socket(self, *_: Any, **__: Any) -> httpcore.AsyncNetworkStream:
        raise RefusedAddress

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(seconds)

    def close(self) -> None:
        self._resolving.shutdown(wait=False, cancel_futures=True)

    async def _addresses(self, host: str, port: int) -> Sequence[Address]:
        """Returns all addresses of the host, each once."""
        call = asyncio.get_running_loop().run_in_executor
        try:
            found = await call(self._resolving, lambda: getaddrinfo(host, port, type=SOCK_STREAM))
        except (OSError, UnicodeError) as error:
            raise httpcore.ConnectError("the name does not resolve") from error
        # A scope ("%eth0") is no part of the address that is checked, and none that is allowed has one.
        return list(dict.fromkeys(ip_address(str(info[4][0]).partition("%")[0]) for info in found))


def _meant(address: Address) -> Address:
    """Returns the IPv4 address that an IPv6 one stands for."""
    if isinstance(address, IPv6Address):
        if address.ipv4_mapped is not None:
            return address.ipv4_mapped
        if address in NAT64:
            return IPv4Address(int(address) & 0xFFFFFFFF)
    return address


def _is_public(address: Address) -> bool:
    if address.is_multicast or address.is_reserved or not address.is_global:
        return False
    return address.version == 4 or (address in GLOBAL_UNICAST and address not in SIX_TO_FOUR)
