"""Every error the service answers with and its HTTP status, and the base of the errors that end a command.

    ServiceError
    ├── InvalidParameter        400  a value the model cannot take
    │   └── UnsupportedParameter 400 a parameter the model cannot honour
    ├── InvalidRequest          422  does not match the schema
    ├── MalformedRequest        400  not HTTP
    ├── MalformedBody           400  not JSON
    ├── BodyTooLarge            413
    ├── UnsupportedMediaType    415  a body whose media type is not JSON
    ├── InvalidApiKey           401  no API key, or an unknown one
    ├── Forbidden               403  a key without the scope, or a link that this server did not sign
    ├── NotFound                404  unknown, no longer kept, or another tenant's
    ├── RequestTimeout          408  the body did not arrive in time
    ├── Conflict                409
    ├── Gone                    410  a result or a link that is no longer kept
    ├── RangeNotSatisfiable     416  none of the file's bytes
    ├── HeadTooLarge            431
    ├── QueueFull               429
    ├── RateLimitExceeded       429  a limit of the caller's key
    └── Unavailable             503  no worker for this model, or no Redis

`type` is one of OpenAI's error types, so that the official SDKs raise the right exception.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar


class ServiceError(Exception):
    """Base of all answers with an error. `param` names the offending field as in the request, dotted (`nag.scale`)."""

    status: ClassVar[int] = 500
    type: ClassVar[str] = "server_error"
    code: ClassVar[str] = "internal_error"

    def __init__(
        self, message: str, *, param: str | None = None, code: str | None = None, retry_after_s: int | None = None
    ) -> None:
        super().__init__(message)
        self.message = message
        self.param = param
        self.error_code = code or self.code
        self.retry_after_s = retry_after_s

    def body(self) -> dict[str, dict[str, str | None]]:
        """Returns the JSON body of the answer, in OpenAI's form."""
        return {"error": {"message": self.message, "type": self.type, "param": self.param, "code": self.error_code}}


class InvalidParameter(ServiceError):
    status, type, code = 400, "invalid_request_error", "invalid_parameter"


class UnsupportedParameter(InvalidParameter):
    code = "unsupported_parameter"


def merge_errors(errors: Sequence[InvalidParameter]) -> InvalidParameter:
    """Joins errors into one, which has the parameter and the code of the first."""
    first, messages = errors[0], dict.fromkeys(error.message for error in errors)
    return type(first)("; ".join(messages), param=first.param, code=first.error_code)


class InvalidRequest(ServiceError):
    status, type, code = 422, "invalid_request_error", "invalid_request"


class MalformedRequest(ServiceError):
    status, type, code = 400, "invalid_request_error", "malformed_request"


class HeadTooLarge(ServiceError):
    status, type, code = 431, "invalid_request_error", "head_too_large"


class MalformedBody(ServiceError):
    status, type, code = 400, "invalid_request_error", "malformed_body"


class BodyTooLarge(ServiceError):
    status, type, code = 413, "invalid_request_error", "body_too_large"


class UnsupportedMediaType(ServiceError):
    status, type, code = 415, "invalid_request_error", "unsupported_media_type"


class InvalidApiKey(ServiceError):
    status, type, code = 401, "invalid_request_error", "invalid_api_key"


class Forbidden(ServiceError):
    status, type, code = 403, "invalid_request_error", "insufficient_scope"


class RequestTimeout(ServiceError):
    status, type, code = 408, "invalid_request_error", "request_timeout"


class NotFound(ServiceError):
    status, type, code = 404, "invalid_request_error", "not_found"


class Conflict(ServiceError):
    status, type, code = 409, "invalid_request_error", "conflict"


class Gone(ServiceError):
    status, type, code = 410, "invalid_request_error", "expired"


class RangeNotSatisfiable(ServiceError):
    status, type, code = 416, "invalid_request_error", "range_not_satisfiable"


class QueueFull(ServiceError):
    status, type, code = 429, "rate_limit_error", "queue_full"


class RateLimitExceeded(ServiceError):
    status, type, code = 429, "rate_limit_error", "rate_limit_exceeded"


class Unavailable(ServiceError):
    status, type, code = 503, "server_error", "unavailable"


class CommandError(Exception):
    """Ends a command. The message is one line for the user: what is wrong, and what to do."""
