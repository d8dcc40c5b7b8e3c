"""The OpenAPI description as a product: what FastAPI derives from the routes, and what only we know."""

from __future__ import annotations

from typing import Any

from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse

from app.api.middleware.public_address import public_address
from app.api.openapi.build import description

__all__ = ["install"]


def install(app: FastAPI, *, asks: bool = False) -> None:
    """`/openapi.json` from now on, of every route that the app has by then."""

    def openapi() -> dict[str, Any]:
        if app.openapi_schema is None:
            app.openapi_schema = description(app, asks=asks)
        return app.openapi_schema

    @app.get("/openapi.json", include_in_schema=False)
    async def get_description(request: Request) -> JSONResponse:
        prefix = public_address(request).prefix
        return JSONResponse(openapi() | ({"servers": [{"url": prefix}]} if prefix else {}))

    app.openapi = openapi  # type: ignore[method-assign]  # FastAPI's way of having one's own
