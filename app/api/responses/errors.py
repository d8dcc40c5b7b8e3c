"""Writes every refusal of the API as the one error body, whether we, pydantic, the router or a bug raised it."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel
from redis.exceptions import RedisError
from starlette.exceptions import HTTPException
from starlette.routing import Match

from app.api import sdapi
from app.api.requests.suggestions import advice, fields_of
from app.api.requests.validation import FaultyRequest
from app.artifacts import ArtifactsError
from app.errors import InvalidApiKey, InvalidRequest, MalformedBody, ServiceError, Unavailable
from app.logs import Log
from app.queue.connection import translate_redis_error

__all__ = ["ErrorBody", "error_response", "install"]

ARTIFACTS_RETRY_S = 2
#: The OpenAI SDK retries 409 and 503. A conflict stays one however often it is sent; a cancelled job would queue again.
NOT_RETRIED = ("idempotency_conflict", "cancelled")
#: What a caller gets who leaves a field out, for those who send a number below its range for that.
LEFT_OUT = {"seed": "; leave it out to have one drawn", "deadline_s": "; leave it out to have none"}
_log = Log("api")


class ErrorDetail(BaseModel):
    """What went wrong; `param` is the field as the caller wrote it, dotted."""

    message: str
    type: str
    param: str | None
    code: str


class ErrorBody(BaseModel):
    """The body of every 4xx and 5xx."""

    error: ErrorDetail


def error_response(error: ServiceError, path: str) -> Response:
    """Returns the answer to a request of this path."""
    headers = {}
    if error.retry_after_s is not None:
        headers["retry-after"] = str(error.retry_after_s)
    if error.status == InvalidApiKey.status:
        headers["www-authenticate"] = 'Basic realm="nag-server"' if sdapi.owns(path) else "Bearer"
    if error.error_code in NOT_RETRIED:
        headers["x-should-retry"] = "false"
    return _response(error.status, error.body(), headers, path)


def install(app: FastAPI) -> None:
    """Handlers for everything but an unexpected exception, which the outermost middleware answers."""
    app.add_exception_handler(ServiceError, _service_error)
    app.add_exception_handler(RedisError, _queue_error)
    app.add_exception_handler(ArtifactsError, _artifacts_error)
    app.add_exception_handler(RequestValidationError, _validation_error)
    app.add_exception_handler(HTTPException, _http_error)


def _response(status: int, body: dict[str, Any], headers: dict[str, str], path: str) -> Response:
    if sdapi.owns(path):
        body = sdapi.error_body(body)
    # ASCII JSON: a message may quote a lone surrogate from the request, which UTF-8 cannot carry.
    return Response(json.dumps(body), status, headers, media_type="application/json")


async def _service_error(request: Request, exc: Exception) -> Response:
    assert isinstance(exc, ServiceError)
    return error_response(exc, request.url.path)


async def _queue_error(request: Request, exc: Exception) -> Response:
    assert isinstance(exc, RedisError)
    return error_response(translate_redis_error(exc), request.url.path)


async def _artifacts_error(request: Request, exc: Exception) -> Response:
    _log.error("artifacts_unreachable", message=exc)
    error = Unavailable(
        "the artifacts cannot be reached", code="artifacts_unreachable", retry_after_s=ARTIFACTS_RETRY_S
    )
    return error_response(error, request.url.path)


async def _validation_error(request: Request, exc: Exception) -> Response:
    assert isinstance(exc, RequestValidationError)
    error = _translate(exc.errors(), fields_of(request))
    if isinstance(exc, FaultyRequest) and exc.of_values:
        error = InvalidRequest(f"{error.message}; {exc.of_values}", param=error.param)
    return error_response(error, request.url.path)


def _translate(errors: Sequence[Any], fields: set[str]) -> ServiceError:
    if errors[0]["type"] == "json_invalid":
        return MalformedBody(f"the body is not JSON: {errors[0]['ctx']['error']} at character {errors[0]['loc'][-1]}")
    found = [(".".join(map(str, error["loc"][1:])), _sentence(error, fields)) for error in errors]
    message = "; ".join(f"{param}: {text}" if param else text for param, text in found)
    return InvalidRequest(message, param=found[0][0] or None)


def _sentence(error: Any, fields: set[str]) -> str:
    location = list(map(str, error["loc"][1:]))
    match error["type"]:
        case "extra_forbidden":
            return f"unknown field{advice(location, fields)}"
        case "missing" if len(error["loc"]) == 1:
            return "a body is required"
        case "missing":
            return "required"
        case _:
            text = str(error["msg"]).removeprefix("Value error, ").replace("Input should be", "must be")
            # -1 and 0 mean "none" in other APIs.
            return text + LEFT_OUT.get(".".join(location), "") if "greater_than" in error["type"] else text


async def _http_error(request: Request, exc: Exception) -> Response:
    assert isinstance(exc, HTTPException)
    where = f"{request.method} {request.url.path}"
    message, code = {
        400: ("the body cannot be read as JSON", MalformedBody.code),
        404: (f"no such route: {where}", "not_found"),
        405: (f"no such method on this route: {where}", "method_not_allowed"),
    }.get(exc.status_code, (str(exc.detail), "http_error"))
    kind = "invalid_request_error" if exc.status_code < 500 else "server_error"
    body = {"error": {"message": message, "type": kind, "param": None, "code": code}}
    headers = {name.lower(): value for name, value in (exc.headers or {}).items()}
    if exc.status_code == 405:
        headers["allow"] = ", ".join(_methods(request))
    return _response(exc.status_code, body, headers, request.url.path)


def _methods(request: Request) -> list[str]:
    """Returns the methods of all routes of this path; the router knows only those of the first."""

    def matches(method: str) -> bool:
        scope = {**request.scope, "method": method, "path_params": {}}
        return any(route.matches(scope)[0] is Match.FULL for route in request.app.routes)

    found = [method for method in ("GET", "POST", "PUT", "PATCH", "DELETE") if matches(method)]
    return ["GET", "HEAD", *found[1:]] if found[:1] == ["GET"] else found  # see app.api.middleware.head
