"""The address by which a client reaches the API, behind proxies that change it."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from ipaddress import IPv4Network, IPv6Address, IPv6Network, ip_address
from urllib.parse import urlsplit

from starlette.datastructures import Headers
from starlette.requests import Request
from starlette.responses import RedirectResponse
from starlette.types import ASGIApp, Receive, Scope, Send

__all__ = ["PublicAddress", "PublicAddressMiddleware", "public_address"]

HOST = re.compile(r"[A-Za-z0-9._~-]+(:[0-9]{1,5})?|\[[0-9A-Fa-f:.]+\](:[0-9]{1,5})?")
PREFIX = re.compile(r"(/[A-Za-z0-9._~-]+)*/?")


@dataclass(frozen=True)
class PublicAddress:
    """The API's address as a client sees it. `prefix` precedes the API's own paths; it is empty, or such as `/nag`."""

    scheme: str
    host: str
    prefix: str = ""

    @property
    def origin(self) -> str:
        """The origin of the pages that the API serves itself."""
        return f"{self.scheme}://{self.host}"

    @property
    def url(self) -> str:
        """What URLs of the API begin with."""
        return self.origin + self.prefix


class PublicAddressMiddleware:
    """Puts the public address into `request.state`, and takes a prefix that a proxy left in it off the path.

    The address is `public_url` if that is set; else that of the request itself, or as `X-Forwarded-Proto`, `-Host` and
    `-Prefix` say, provided that its sender is one of the `proxies`.
    """

    def __init__(self, app: ASGIApp, public_url: str | None, proxies: Sequence[IPv4Network | IPv6Network] = ()) -> None:
        self.app = app
        self._set = None if public_url is None else _parse_address(public_url)
        self._proxies = tuple(proxies)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return await self.app(scope, receive, send)
        address = self._set or self._address(scope)
        scope.setdefault("state", {})["address"] = address
        path: str = scope["path"]
        if address.prefix and path == address.prefix:  # whose relative links would lead elsewhere
            return await RedirectResponse(address.prefix + "/", 308)(scope, receive, send)
        if address.prefix and path.startswith(address.prefix + "/"):
            scope["path"] = path.removeprefix(address.prefix)
            scope["raw_path"] = scope.get("raw_path", b"").removeprefix(address.prefix.encode())
        return await self.app(scope, receive, send)

    def _address(self, scope: Scope) -> PublicAddress:
        headers = Headers(scope=scope)
        server = scope.get("server") or ("localhost", None)
        host = headers.get("host") or (server[0] if server[1] is None else f"{server[0]}:{server[1]}")
        if not self._is_trusted(scope):
            return PublicAddress(scope["scheme"], host)
        scheme = _first(headers, "x-forwarded-proto").lower()
        forwarded_host, prefix = _first(headers, "x-forwarded-host"), _first(headers, "x-forwarded-prefix")
        return PublicAddress(
            scheme if scheme in ("http", "https") else scope["scheme"],
            forwarded_host if HOST.fullmatch(forwarded_host) else host,
            prefix.rstrip("/") if PREFIX.fullmatch(prefix) else "",
        )

    def _is_trusted(self, scope: Scope) -> bool:
        client = scope.get("client")
        if not self._proxies or not client:
            return False
        try:
            address = ip_address(client[0])
        except ValueError:
            return False
        if isinstance(address, IPv6Address) and address.ipv4_mapped is not None:
            address = address.ipv4_mapped
        return any(address in network for network in self._proxies)


def public_address(request: Request) -> PublicAddress:
    """Returns the one that `PublicAddressMiddleware` found."""
    address: PublicAddress = request.state.address
    return address


def _parse_address(url: str) -> PublicAddress:
    parts = urlsplit(url)
    return PublicAddress(parts.scheme, parts.netloc, parts.path.rstrip("/"))


def _first(headers: Headers, name: str) -> str:
    """Returns the value of the proxy nearest to the client; proxies append theirs."""
    return headers.get(name, "").partition(",")[0].strip()
