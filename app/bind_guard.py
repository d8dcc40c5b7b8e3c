"""Refuses to serve beyond this machine without API keys."""

from __future__ import annotations

import ipaddress
import socket

from app.errors import CommandError
from app.settings import Settings

__all__ = ["InsecureBindError", "check_bind_address"]


class InsecureBindError(CommandError):
    """The server would listen beyond this machine, and no API key is needed."""


def check_bind_address(settings: Settings) -> None:
    """Raises InsecureBindError if NAG_HOST is no loopback address and no API key is needed."""
    if not settings.asks_for_keys and not _is_loopback(settings.host):
        raise InsecureBindError(
            f"NAG_HOST={settings.host}: everyone who reaches this address could use the service. Make an API key with "
            "`nag-server keys new` and name its file in NAG_API_KEYS_FILE, or allow everyone with --insecure"
        )


def _is_loopback(host: str) -> bool:
    try:
        infos = socket.getaddrinfo(host or None, None, flags=socket.AI_PASSIVE)
    except (OSError, UnicodeError):
        return False
    return all(ipaddress.ip_address(str(info[4][0]).partition("%")[0]).is_loopback for info in infos)
