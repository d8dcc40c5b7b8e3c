"""Collects all faults of a request in one answer: those of its shape, and those of values whose shape is right.

A request with a fault of shape is handled once more without the fields at fault: a dry run, which ends where the job
would be queued. The answer names the faults of both runs.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Callable, Coroutine, Mapping, Sequence
from typing import Any

from fastapi import Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.routing import APIRoute
from pydantic import BaseModel, ValidationError
from starlette.types import Message

from app.api.requests.generation import GenerationBody
from app.api.sdapi.schemas import SdapiBody
from app.errors import InvalidParameter, NotFound, ServiceError

__all__ = ["FaultyRequest", "ValidationRoute", "as_json", "end_dry_run", "note_faults", "reduce_fields", "shape_of"]

#: Runs of one request: with a form's fields, with its lists, and without what they leave unfit.
DRY_RUNS_MAX = 3


class FaultyRequest(RequestValidationError):
    """The faults of a request's shape, and a sentence about those of its values; empty if there are none."""

    def __init__(self, errors: Sequence[Any], of_values: str) -> None:
        super().__init__(errors)
        self.of_values = of_values


class _DryRunEnd(Exception):
    """Raised where the request would be queued."""


class ValidationRoute(APIRoute):
    """A route that names all faults of the request for a job. It must not change anything before it submits the job."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        handle = super().get_route_handler()
        if self.body_field is None or not issubclass(shape := shape_of(self), (GenerationBody, SdapiBody)):
            return handle

        async def handle_all(request: Request) -> Response:
            errors = list(_noted(request))
            of_values = ""
            for _ in range(DRY_RUNS_MAX):
                try:
                    return await handle(request)
                except RequestValidationError as error:
                    errors += error.errors()
                    fields = reduce_fields(error.body, error.errors(), shape, shape.model_validate)
                    if fields is None:
                        break
                    note_faults(request, errors)
                    request = as_json(request, json.dumps(fields).encode())
                except _DryRunEnd:
                    break
                except ServiceError as error:
                    if not errors:
                        raise
                    if isinstance(error, (InvalidParameter, NotFound)):
                        of_values = error.message
                    break
            raise FaultyRequest(errors, of_values)

        return handle_all


def note_faults(request: Request, errors: Sequence[Any]) -> None:
    """Notes faults of a request's shape, so that it is not queued."""
    request.state.faults = errors


def end_dry_run(request: Request) -> None:
    """Ends the handling of a request whose shape is at fault; called before anything is changed."""
    if _noted(request):
        raise _DryRunEnd


def reduce_fields(
    fields: Any, errors: Sequence[Any], shape: type[BaseModel], validate: Callable[[Any], BaseModel]
) -> dict[str, Any] | None:
    """Returns the fields without those at fault, which have the shape then; a text that is required is empty instead.

    None if other fields cannot be judged without them.
    """
    if not isinstance(fields, Mapping):
        return None
    reduced: dict[str, Any] = copy.deepcopy(dict(fields))
    paths = [_path(error) for error in errors]
    for _ in range(2):
        if any(not path or path[0] == "model" for path in paths):
            return None
        for path in paths:
            _drop(reduced, path)
        required = [name for name, field in shape.model_fields.items() if field.is_required()]
        reduced |= {name: "" for name in required if name not in reduced}
        try:
            validate(reduced)
        except ValidationError as error:
            paths = [_path(fault)[:1] for fault in error.errors()]
        else:
            return reduced
    return None


def shape_of(route: APIRoute) -> type[BaseModel]:
    """Returns the model of a route's body."""
    shape = route.body_field.field_info.annotation if route.body_field is not None else None
    assert isinstance(shape, type)
    assert issubclass(shape, BaseModel)
    return shape


def as_json(request: Request, body: bytes) -> Request:
    """Returns the request with another body, which is JSON."""
    kept = [(name, value) for name, value in request.scope["headers"] if name != b"content-type"]
    whole: Message | None = {"type": "http.request", "body": body, "more_body": False}

    async def receive() -> Message:
        nonlocal whole
        message, whole = whole, None
        return message or await request.receive()

    return Request({**request.scope, "headers": [*kept, (b"content-type", b"application/json")]}, receive)


def _noted(request: Request) -> Sequence[Any]:
    return getattr(request.state, "faults", ())


def _path(error: Any) -> tuple[Any, ...]:
    """Returns where in the body a fault is; empty for a fault of the query or of the body as a whole."""
    location: tuple[Any, ...] = error["loc"]
    return location[1:] if location[:1] == ("body",) else ()


def _drop(fields: dict[str, Any], path: Sequence[Any]) -> None:
    """Takes out what is at the path, or the innermost object around it that is there."""
    name, *inner = path
    value = fields.get(name)
    if inner and isinstance(value, dict) and inner[0] in value:
        _drop(value, inner)
    else:
        fields.pop(name, None)
