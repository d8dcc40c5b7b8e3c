"""Settings of the HTTP API: its address, its limits and its API keys."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Annotated

from pydantic import Field, NonNegativeFloat, PositiveFloat, field_validator
from pydantic_settings import NoDecode

from app.auth.api_key import ApiKey
from app.settings.types import CommaList, Network, Port, SettingsGroup, Url

__all__ = ["ANY_ADDRESS", "ApiSettings"]

ANY_ADDRESS = {"0.0.0.0": "127.0.0.1", "::": "[::1]"}  # noqa: S104 - where a server bound to all is reached from here
#: Also of apps and extensions, whose pages have schemes of their own.
ORIGIN = re.compile(r"[a-z][a-z0-9+.-]*://([a-z0-9._-]+|\[[0-9a-f:]+\])(:[0-9]{1,5})?")


class ApiSettings(SettingsGroup):
    host: str = "127.0.0.1"
    """Address that the API binds."""

    port: Port = 8000
    """Port that the API binds. 0 takes a free one."""

    public_url: Url | None = None
    """Address by which clients reach the API, with the path under which a proxy serves it. Links begin with it."""

    trusted_proxies: CommaList[Network] = ()
    """Comma-separated networks of proxies, such as `10.0.0.0/8`, whose X-Forwarded-Proto, -Host and -Prefix headers are
    trusted. Default: none.
    """

    wait_max_s: PositiveFloat = 50.0
    """Longest time that a request is held for its result. Many proxies close a connection after 60 s of silence."""

    rejoin_s: NonNegativeFloat = 15.0
    """A job whose client disconnected while it waited is cancelled after this time, unless the same request comes again
    and takes the job over. 0 cancels it at once.
    """

    body_max_bytes: Annotated[int, Field(ge=1024)] = 1_000_000
    """Largest request body, without its files."""

    head_max_bytes: Annotated[int, Field(ge=1024)] = 32_768
    """Largest head of a request, which is its URL and its headers."""

    read_timeout_s: PositiveFloat = 30.0
    """Longest time that the head of a request may take to arrive, and then its body."""

    sdapi: bool = True
    """Whether the routes of AUTOMATIC1111's web API, `/sdapi/v1/…`, are served."""

    cors_origins: CommaList[str] = ()
    """Comma-separated sites, apps and extensions whose pages may call the API, such as `https://example.org` or
    `app://obsidian.md`, or `*` for all. Default: none.
    """

    api_keys_file: Path | None = None
    """TOML file of API keys with one table `[keys.<id>]` per key. It is read again when it changes."""

    api_keys: Annotated[tuple[ApiKey, ...], NoDecode] = ()
    """API keys in addition to those of the file, as a JSON list of tables."""

    api_key: str | None = None
    """API key that the commands of this machine send to a server."""

    @field_validator("cors_origins")
    @classmethod
    def _are_origins(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for origin in value:
            if origin != "*" and ORIGIN.fullmatch(origin) is None:
                raise ValueError(f"{origin}: not an origin such as https://example.org or app://obsidian.md")
        return value

    @field_validator("api_keys", mode="before")
    @classmethod
    def _read_json(cls, value: object) -> object:
        return json.loads(value) if isinstance(value, str) else value

    @property
    def asks_for_keys(self) -> bool:
        """Whether a caller needs an API key: from the first one on, and with a file that is still empty."""
        return bool(self.api_keys) or self.api_keys_file is not None

    @property
    def url(self) -> str:
        """URL at which this machine reaches a server with these settings."""
        host = ANY_ADDRESS.get(self.host, f"[{self.host}]" if ":" in self.host else self.host)
        return f"http://{host}:{self.port}"
