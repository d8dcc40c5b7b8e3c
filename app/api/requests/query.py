"""Parameters of a URL's query: those of its route, and one that clients of Azure add to every request."""

from __future__ import annotations

from fastapi import Request
from fastapi.routing import APIRoute
from pydantic import BaseModel

from app.errors import InvalidRequest
from app.suggestions import did_you_mean

__all__ = ["check_query"]

#: Taken on every route, and without effect: there is one version of this API.
EVERYWHERE = frozenset({"api-version"})


async def check_query(request: Request) -> None:  # it never waits, but FastAPI runs a plain function in a thread
    """Raises InvalidRequest for parameters that the route does not have. Pages are no part of the API, and take any."""
    route = request.scope["route"]
    if not request.query_params or not isinstance(route, APIRoute) or not route.include_in_schema:
        return
    known = _parameters(route)
    unknown = [name for name in dict.fromkeys(request.query_params) if name not in known | EVERYWHERE]
    if unknown:
        told = (f"{name}: unknown parameter of the query{did_you_mean(name, known)}" for name in unknown)
        raise InvalidRequest("; ".join(told), param=unknown[0])


def _parameters(route: APIRoute) -> frozenset[str]:
    names: set[str] = set()
    for parameter in route.dependant.query_params:
        shape = parameter.field_info.annotation
        if isinstance(shape, type) and issubclass(shape, BaseModel):
            names |= set(shape.model_fields)
        else:
            names.add(parameter.alias)
    return frozenset(names)
