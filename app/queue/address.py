"""Parses NAG_REDIS_URL. It does not import redis-py, so that the settings can check an address without a client.

No error quotes the URL: a password that is not escaped may be anywhere in it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal
from urllib.parse import parse_qsl, unquote, urlsplit

from pydantic import TypeAdapter, ValidationError

__all__ = ["FORMS", "Address", "parse_address"]

FORMS = (
    "redis://[[USER]:PASSWORD@]HOST[:PORT][/DB], rediss:// with TLS (or valkey://, valkeys://), unix:///PATH[?db=DB], "
    "sentinel://[[USER]:PASSWORD@]HOST[:PORT][,HOST[:PORT]...]/SERVICE[/DB], sentinels:// with TLS"
)
PORTS = {"redis": 6379, "rediss": 6379, "valkey": 6379, "valkeys": 6379, "sentinel": 26379, "sentinels": 26379}
TLS = ("rediss", "valkeys", "sentinels")

#: Options of each connection, as redis-py names them.
OPTIONS: Mapping[str, Any] = {
    "client_name": str,
    "db": int,
    "health_check_interval": int,
    "password": str,
    "socket_timeout": float,
    "username": str,
}
TCP_OPTIONS: Mapping[str, Any] = {"socket_connect_timeout": float}
TLS_OPTIONS: Mapping[str, Any] = {
    "ssl_ca_certs": str,
    "ssl_cert_reqs": Literal["none", "optional", "required"],
    "ssl_certfile": str,
    "ssl_check_hostname": bool,
    "ssl_keyfile": str,
}
#: The Sentinels' own user and password; those of the URL are the server's.
SENTINEL_OPTIONS: Mapping[str, Any] = {"sentinel_password": str, "sentinel_username": str}


@dataclass(frozen=True)
class Address:
    """The address of a server (one of `hosts`), a socket (`path`), or the primary of a `service` with Sentinels at
    `hosts`.
    """

    hosts: tuple[tuple[str, int], ...] = ()
    path: str = ""
    service: str = ""
    is_tls: bool = False
    options: Mapping[str, Any] = field(default_factory=dict, repr=False)  # may hold the password
    sentinel_options: Mapping[str, Any] = field(default_factory=dict, repr=False)


def parse_address(url: str) -> Address:
    """Parses a URL of one of FORMS. Raises ValueError with one line that says what to write."""
    try:
        parts = urlsplit(url)
    except ValueError:  # brackets that hold no IPv6 address
        raise ValueError(f"must be {FORMS}") from None
    if parts.scheme not in {*PORTS, "unix"}:
        raise ValueError(f"must be {FORMS}")
    if parts.scheme != "unix" and "@" in parts.path + parts.query + parts.fragment:
        raise ValueError("write / ? # @ in the user and the password as %2F %3F %23 %40")
    credentials, _, hosts = parts.netloc.rpartition("@")
    user, _, password = credentials.partition(":")
    options = {name: unquote(text) for name, text in (("username", user), ("password", password)) if text}
    options |= _options(parts.scheme, parts.query)
    if parts.scheme == "unix" and parts.path and not hosts:
        return Address(path=unquote(parts.path), options=options)
    segments = [unquote(segment) for segment in parts.path.split("/") if segment]
    is_sentinel = parts.scheme.startswith("sentinel")
    service = segments.pop(0) if is_sentinel and segments else ""
    if is_sentinel and not service:
        raise ValueError(
            f"{parts.scheme}:// must name the service: {parts.scheme}://HOST[:PORT][,HOST[:PORT]...]/SERVICE"
        )
    if parts.scheme == "unix" or len(segments) > 1 or ("," in hosts and not is_sentinel):
        raise ValueError(f"must be {FORMS}")
    if segments:
        options.setdefault("db", _value("the database", int, segments[0]))
    own = {name.removeprefix("sentinel_"): options.pop(name) for name in SENTINEL_OPTIONS if name in options}
    servers = tuple(_host_and_port(host, PORTS[parts.scheme]) for host in hosts.split(","))
    return Address(servers, "", service, parts.scheme in TLS, options, own)


def _options(scheme: str, query: str) -> dict[str, Any]:
    known = dict(OPTIONS)
    known |= TCP_OPTIONS if scheme != "unix" else {}
    known |= TLS_OPTIONS if scheme in TLS else {}
    known |= SENTINEL_OPTIONS if scheme.startswith("sentinel") else {}
    options = {}
    for name, text in parse_qsl(query, keep_blank_values=True):
        if name not in known:
            raise ValueError(f"unknown option {name!r}; {scheme}:// takes {', '.join(sorted(known))}")
        options[name] = _value(f"the option {name}", known[name], text)
    return options


def _value(name: str, kind: Any, text: str) -> Any:
    try:
        return TypeAdapter(kind).validate_python(text)
    except ValidationError as error:
        raise ValueError(f"{name}: {error.errors()[0]['msg'].replace('Input should be', 'must be')}") from None


def _host_and_port(text: str, port: int) -> tuple[str, int]:
    parts = urlsplit(f"//{text}")
    try:
        named = parts.port
    except ValueError:
        raise ValueError("the port must be a number from 0 to 65535") from None
    if not parts.hostname:
        raise ValueError("must name a host: redis://HOST[:PORT][/DB]")
    return parts.hostname, port if named is None else named
