"""HEAD on every route that answers GET."""

from __future__ import annotations

from starlette.types import ASGIApp, Message, Receive, Scope, Send

__all__ = ["HeadMiddleware"]


class HeadMiddleware:
    """Answers HEAD as GET, without the body (RFC 9110, section 9.3.2)."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["method"] != "HEAD":
            return await self.app(scope, receive, send)
        is_sent = False

        async def send_head(message: Message) -> None:
            nonlocal is_sent
            if is_sent:
                return
            is_sent = True
            await send(message)
            await send({"type": "http.response.body"})  # ends a stream, which would go on for nobody

        as_get = {**scope, "method": "GET"}
        try:
            return await self.app(as_get, receive, send_head)
        finally:
            scope.update(as_get, method="HEAD")  # with the route, by which requests are counted
