"""Opens a span for each request; the job carries its traceparent on (see app.tracing)."""

from __future__ import annotations

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app.tracing import Tracing

__all__ = ["TracingMiddleware"]

#: Paths without a span: load balancers and Prometheus poll them.
UNTRACED = frozenset({"/healthz", "/readyz", "/metrics", "/metrics/workers"})


class TracingMiddleware:
    def __init__(self, app: ASGIApp, tracing: Tracing) -> None:
        self.app = app
        self._tracing = tracing

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["path"] in UNTRACED:
            return await self.app(scope, receive, send)
        with self._tracing.request(scope["method"], Headers(scope=scope).get("traceparent", "")) as (span, carried):
            scope.setdefault("state", {})["traceparent"] = carried

            async def send_noted(message: Message) -> None:
                if message["type"] == "http.response.start":
                    span.set_attribute("http.response.status_code", message["status"])
                await send(message)

            try:
                return await self.app(scope, receive, send_noted)
            finally:
                route = getattr(scope.get("route"), "path", "other")
                span.update_name(f"{scope['method']} {route}")
