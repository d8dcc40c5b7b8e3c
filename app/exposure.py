"""Whether strangers could reach a server that asks nobody for a key."""

from __future__ import annotations

import ipaddress
import socket

from app.settings import Settings

__all__ = ["Exposed", "check"]


class Exposed(Exception):
    """The message is one line."""


def check(settings: Settings) -> None:
    """Raises Exposed for an address beyond this machine's own without API keys."""
    if not settings.asks_for_keys and not _loopback(settings.host):
        raise Exposed(
            f"NAG_HOST={settings.host}: whoever reaches this address could use the service. Make an API key with "
            "`nag-server keys new` and name its file in NAG_API_KEYS_FILE, or allow everybody with --insecure"
        )


def _loopback(host: str) -> bool:
    try:
        found = {each[4][0] for each in socket.getaddrinfo(host or None, None, flags=socket.AI_PASSIVE)}
    except (OSError, UnicodeError):
        return False
    return bool(found) and all(ipaddress.ip_address(str(each).partition("%")[0]).is_loopback for each in found)
