"""A request's webhook, checked as far as it can be before anything is sent to it."""

from __future__ import annotations

from ipaddress import ip_address

from pydantic import HttpUrl, TypeAdapter, ValidationError

from app.api.requests.generation import WebhookBody
from app.api.webhooks.guard import allowed
from app.errors import InvalidParameter, UnsupportedParameter
from app.jobs import EventType, Webhook
from app.settings import Settings

__all__ = ["asked_webhook"]

#: Below it ports belong to services that speak something else, some of which can be talked into by HTTP.
LOWEST_PORT = 1024
WEB_PORTS = (80, 443)
_URL: TypeAdapter[HttpUrl] = TypeAdapter(HttpUrl)


def asked_webhook(asked: WebhookBody | None, settings: Settings) -> Webhook | None:
    """Raises UnsupportedParameter if this server sends no webhooks, InvalidParameter for a URL it will not send to."""
    if asked is None:
        return None
    if settings.webhook_secret is None:
        raise UnsupportedParameter("webhook: this server has no secret to sign one with", param="webhook")
    return Webhook(_checked(asked.url, settings), tuple(EventType(each) for each in dict.fromkeys(asked.events)))


def _checked(text: str, settings: Settings) -> str:
    """Returns the URL in its normal form: a number or an odd spelling of an address is the address."""
    try:
        url = _URL.validate_python(text)
    except ValidationError:
        raise _refused("must be an http or https URL") from None
    host = url.host or ""
    if url.username is not None or url.password is not None:
        raise _refused("must not hold a user name or a password")
    if url.port not in WEB_PORTS and (url.port or 0) < LOWEST_PORT:
        raise _refused(f"its port must be 80, 443 or at least {LOWEST_PORT}")
    name = host.rstrip(".").lower()
    if name == "localhost" or name.endswith(".localhost"):
        name = "127.0.0.1"
    try:
        address = ip_address(name.strip("[]"))
    except ValueError:
        return str(url)  # a name: what it resolves to is checked when the connection is made
    if not allowed(address, settings.webhook_allow):
        raise _refused("must not be a private, local or reserved address")
    return str(url)


def _refused(why: str) -> InvalidParameter:
    return InvalidParameter(f"webhook.url: {why}", param="webhook.url", code="webhook_url_refused")
