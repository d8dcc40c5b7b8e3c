"""One POST of a webhook, signed by the rules of Standard Webhooks."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime
from enum import StrEnum

import httpcore
import httpx
from standardwebhooks import Webhook as Signer

from app.api.webhooks.guard import GuardedBackend, RefusedAddress
from app.settings import Settings

__all__ = ["Outcome", "Sender"]

TIMEOUT_S = 10.0  # from the look-up of the name to the answer's status


class Outcome(StrEnum):
    """What came of it."""

    DELIVERED = "delivered"  # 2xx
    BUSY = "busy"  # 429 or 5xx
    UNREACHABLE = "unreachable"  # no connection, no answer in time, or none that is HTTP
    REJECTED = "rejected"  # any other status; a redirect is not followed
    REFUSED = "refused"  # by us: the host resolves to an address that no webhook may reach

    @property
    def worth_another_try(self) -> bool:
        return self in (Outcome.BUSY, Outcome.UNREACHABLE)


class Sender:
    """Holds no connection between two deliveries. Needs settings.webhook_secret."""

    def __init__(self, settings: Settings) -> None:
        assert settings.webhook_secret is not None
        self._signer = Signer(settings.webhook_secret)
        self._backend = GuardedBackend(settings.webhook_allow)
        self._pool = httpcore.AsyncConnectionPool(
            ssl_context=httpx.create_ssl_context(),
            max_connections=None,
            max_keepalive_connections=0,
            network_backend=self._backend,
        )

    async def send(self, url: str, message_id: str, body: str) -> tuple[Outcome, int | None]:
        """Returns the outcome, and the status if there was one. Of the answer nothing else is read."""
        now = datetime.now(UTC)
        headers: dict[bytes | str, bytes | str] = {
            "content-type": "application/json",
            "user-agent": "nag-server",
            "webhook-id": message_id,
            "webhook-timestamp": str(int(now.timestamp())),
            "webhook-signature": self._signer.sign(message_id, now, body),
        }
        try:
            async with (
                asyncio.timeout(TIMEOUT_S),
                self._pool.stream("POST", url, headers=headers, content=body.encode()) as answer,
            ):
                status = answer.status
        except RefusedAddress:
            return Outcome.REFUSED, None
        except (TimeoutError, httpcore.TimeoutException, httpcore.NetworkError, httpcore.ProtocolError, OSError):
            return Outcome.UNREACHABLE, None
        if 200 <= status < 300:
            return Outcome.DELIVERED, status
        return Outcome.BUSY if status == 429 or status >= 500 else Outcome.REJECTED, status

    async def close(self) -> None:
        await self._pool.aclose()
        self._backend.close()
