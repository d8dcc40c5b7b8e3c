"""Fetches input files from http(s) URLs of hosts that the operator allows."""

from __future__ import annotations

import asyncio
from urllib.parse import urlsplit

import httpcore
import httpx

from app.api.webhooks.guard import GuardedBackend, RefusedAddress
from app.errors import InvalidParameter
from app.settings import Settings

__all__ = ["fetch_file", "is_url"]


def is_url(text: str) -> bool:
    """Whether it is an http or https URL."""
    return text[:8].lower().startswith(("http://", "https://"))


async def fetch_file(url: str, field: str, settings: Settings, most_bytes: int) -> bytes:
    """Returns what the URL answers with. A redirect is not followed.

    Raises InvalidParameter for a host that is not allowed, resolves to a private address, or does not answer with at
    most so many bytes in time; `field` is the request's, for the message.
    """
    try:
        host = urlsplit(url).hostname or ""
    except ValueError:
        host = ""
    if not any(host == name or (name.startswith(".") and host.endswith(name)) for name in settings.input_url_hosts):
        allowed = (
            f"allowed are {', '.join(settings.input_url_hosts)}" if settings.input_url_hosts else "none is allowed"
        )
        raise _refused(
            field, f"URLs of the host {host!r} are not fetched; {allowed}. Send a data URL or upload the file"
        )
    backend = GuardedBackend(settings.webhook_allow)
    try:
        async with (
            asyncio.timeout(settings.read_timeout_s),
            httpcore.AsyncConnectionPool(
                ssl_context=httpx.create_ssl_context(), max_keepalive_connections=0, network_backend=backend
            ) as pool,
            pool.stream("GET", url, headers={"user-agent": "nag-server", "accept-encoding": "identity"}) as answer,
        ):
            if answer.status != 200:
                raise _refused(field, f"the URL answered with status {answer.status}; redirects are not followed")
            data = bytearray()
            async for chunk in answer.aiter_stream():
                data += chunk
                if len(data) > most_bytes:
                    raise _refused(field, f"the URL answered with more than {most_bytes} bytes")
    except RefusedAddress:
        raise _refused(field, "the URL's host is, or resolves to, a private, local or reserved address") from None
    except TimeoutError:
        raise _refused(field, f"the URL did not answer within {settings.read_timeout_s:g} s") from None
    except (
        httpcore.TimeoutException, httpcore.NetworkError, httpcore.ProtocolError, httpcore.UnsupportedProtocol, OSError,
    ) as error:  # fmt: skip
        raise _refused(field, f"the URL could not be fetched ({type(error).__name__})") from None
    finally:
        backend.close()
    return bytes(data)


def _refused(field: str, why: str) -> InvalidParameter:
    return InvalidParameter(f"{field}: {why}", param=field, code="input_url_refused")
