"""The OpenAPI description as a product: what FastAPI derives from the routes, and what only we know."""

from __future__ import annotations

from typing import Any

from fastapi import FastAPI

from app.api.openapi.build import description

__all__ = ["install"]


def install(app: FastAPI, *, asks: bool = False) -> None:
    """`/openapi.json` from now on, of every route that the app has by then."""

    def openapi() -> dict[str, Any]:
        if app.openapi_schema is None:
            app.openapi_schema = description(app, asks=asks)
        return app.openapi_schema

    app.openapi = openapi  # type: ignore[method-assign]  # FastAPI's way of having one's own
