"""Security headers of every response, CORS, and the refusal of requests that pages of other sites send."""

from __future__ import annotations

from collections.abc import Sequence

from starlette.datastructures import Headers, MutableHeaders
from starlette.middleware.cors import CORSMiddleware
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app.api import sdapi
from app.api.middleware.early_response import refuse
from app.errors import Forbidden

__all__ = ["HEADERS", "BrowserSecurityMiddleware", "cors"]

HEADERS = {
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "content-security-policy": "default-src 'none'; frame-ancestors 'none'",
}
#: Answers to a caller alone.
PRIVATE = ("/v1/", f"{sdapi.PATH}/")
#: What a page of an allowed origin may read in addition to the body.
EXPOSED = (
    "location", "openai-poll-after-ms", "preference-applied", "retry-after", "x-inference-time", "x-queue-time",
    "x-ratelimit-limit-requests", "x-ratelimit-remaining-requests", "x-ratelimit-reset-requests", "x-request-id",
    "x-should-retry", "x-nag-warnings",
)  # fmt: skip


class BrowserSecurityMiddleware:
    """Adds security headers that a response does not set itself, and refuses requests of pages of other sites.

    CORS alone would not do: a browser sends the form of another site's page without asking first.
    """

    def __init__(self, app: ASGIApp, origins: Sequence[str]) -> None:
        self.app = app
        self.origins = origins

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return await self.app(scope, receive, send)

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in HEADERS.items():
                    headers.setdefault(name, value)
                if scope["path"].startswith(PRIVATE):
                    headers.setdefault("cache-control", "no-store")
            await send(message)

        if scope["method"] not in ("GET", "HEAD", "OPTIONS") and not self._is_own(scope):
            error = Forbidden("Origin: pages of this site may not call the API; NAG_CORS_ORIGINS names those that may",
                              code="forbidden_origin")  # fmt: skip
            return await refuse(error, scope, receive, send_with_headers)
        return await self.app(scope, receive, send_with_headers)

    def _is_own(self, scope: Scope) -> bool:
        """Whether no page has sent it, or one of this server or of an allowed origin. A browser says itself whether it
        was a page of this server; proxies may change the host by which that is seen else.
        """
        headers = Headers(scope=scope)
        origin = headers.get("origin")
        if origin is None or "*" in self.origins or origin in self.origins:
            return True
        if headers.get("sec-fetch-site") == "same-origin":
            return True
        return origin == scope["state"]["address"].origin or origin.partition("://")[2] == headers.get("host")


def cors(app: ASGIApp, origins: Sequence[str]) -> ASGIApp:
    """Lets the pages of these origins call the API; no cookie is ever meant."""
    return CORSMiddleware(
        app, allow_origins=origins, allow_methods=["GET", "POST", "DELETE"], allow_headers=["*"],
        expose_headers=EXPOSED, max_age=3600,
    )  # fmt: skip
