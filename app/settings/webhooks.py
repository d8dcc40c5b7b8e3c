"""Settings of webhooks."""

from __future__ import annotations

from base64 import b64decode
from contextlib import suppress
from typing import Annotated

from pydantic import Field, PositiveFloat, field_validator

from app.settings.types import CommaList, Network, SettingsGroup

__all__ = ["WebhookSettings"]


class WebhookSettings(SettingsGroup):
    webhook_secret: Annotated[str | None, Field(repr=False)] = None
    """Secret that signs webhooks: `whsec_` and the base64 of 24 to 64 random bytes. Without it, requests for a webhook
    are refused.
    """

    webhook_allow: CommaList[Network] = ()
    """Comma-separated networks that webhooks and URLs of inputs may reach in addition to public addresses."""

    webhook_attempts: Annotated[int, Field(ge=1, le=20)] = 8
    """How many times the event that ends a job is sent until its receiver accepts it."""

    webhook_retry_s: PositiveFloat = 5.0
    """Wait before the second attempt. Before each further one it is four times longer, an hour at most."""

    @field_validator("webhook_secret")
    @classmethod
    def _is_secret(cls, value: str | None) -> str | None:
        if value is None:
            return None
        with suppress(ValueError):
            if value.startswith("whsec_") and 24 <= len(b64decode(value.removeprefix("whsec_"), validate=True)) <= 64:
                return value
        raise ValueError("must be whsec_ and the base64 of 24 to 64 bytes")
