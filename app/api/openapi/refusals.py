"""Which errors each operation answers with: those that follow from its shape, and those it raises itself."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from app.api.middleware.auth import needed
from app.errors import (
    BodyTooLarge,
    Conflict,
    Forbidden,
    Gone,
    InvalidApiKey,
    InvalidParameter,
    InvalidRequest,
    MalformedBody,
    NotFound,
    QueueFull,
    RangeNotSatisfiable,
    RateLimitExceeded,
    RequestTimeout,
    ServiceError,
    Unavailable,
    UnsupportedMediaType,
    UnsupportedParameter,
)

__all__ = ["OWN", "examples", "responses"]

# The document shows one body for each code.
NO_MODEL = InvalidParameter(
    "model: no model 'flux'; served are shapes-flux, shapes-wan", param="model", code="model_not_found"
)
NO_SUCH_MODEL = NotFound(NO_MODEL.message, param="model", code="model_not_found")
NO_FILE = NotFound("no file 'file-0'", code="file_not_found")
NO_JOB = NotFound("no job 'job_0'")
OF_LORAS = (
    InvalidParameter(
        "loras.0.id: no LoRA 'style'; model shapes-flux takes outlined, striped",
        param="loras.0.id",
        code="lora_not_found",
    ),
    InvalidParameter(
        "loras.0.id: style is a LoRA for flux-dev; model shapes-flux takes outlined, striped",
        param="loras.0.id",
        code="wrong_base",
    ),
)
NOT_LISTED = InvalidParameter("after: no job 'job_0'", param="after")
REFUSED_SCRIPT = UnsupportedParameter(
    "alwayson_scripts.ControlNet: there is no such script; leave it out", param="alwayson_scripts.ControlNet"
)
NOT_READY = Conflict("job job_0 is in_progress", code="not_ready", retry_after_s=1)
NO_LORA = NotFound("no LoRA 'style'; see GET /v1/loras", code="lora_not_found")
NO_STORE = Unavailable("the artifacts cannot be reached", code="artifacts_unreachable", retry_after_s=2)
GONE = Gone("the result of job job_0 is no longer kept")
WRONG_RANGE = InvalidParameter("Range: must be bytes=first-last", param="Range")
NO_SUCH_BYTES = RangeNotSatisfiable("Range: the file has 6431 bytes", param="Range")
KEY_USED = Conflict("this Idempotency-Key was used with another request", code="idempotency_conflict")
FULL = QueueFull("the queue of wan21-lightx2v is full; try again later", retry_after_s=10)
NO_WORKER = Unavailable("no worker is running", code="no_worker", retry_after_s=1)
NOT_IN_TIME = Unavailable(
    "not done within the time a request is held; the job goes on as /v1/jobs/job_0", code="timeout"
)
#: Of routes whose request is held until the images are there.
OF_HELD = (*OF_LORAS, KEY_USED, GONE, FULL, NO_WORKER, NOT_IN_TIME)
UNREACHABLE = Unavailable("the queue cannot be reached", code="queue_unreachable", retry_after_s=2)
REFUSED = Unavailable(
    "the queue's Redis has reached its maxmemory and takes no more jobs", code="queue_refused", retry_after_s=10
)

#: By operationId; what follows from the shape of a request is not repeated.
OWN: dict[str, tuple[ServiceError, ...]] = {
    "create_job": (NO_MODEL, NO_FILE, NO_JOB, *OF_LORAS, KEY_USED, FULL),
    "list_jobs": (NOT_LISTED,),
    "get_job": (NO_JOB,),
    "delete_job": (NO_JOB,),
    "cancel_job": (NO_JOB,),
    "stream_job_events": (
        InvalidParameter("Last-Event-ID: not the id of an event", param="Last-Event-ID"),
        NO_JOB,
    ),
    "get_job_result": (
        InvalidParameter("index: the job has 1 outputs, counted from 0", param="index"),
        NO_JOB,
        NOT_READY,
        GONE,
        NO_SUCH_BYTES,
    ),
    "create_image": (NO_MODEL, NO_FILE, NO_JOB, *OF_HELD),
    "edit_image": (
        InvalidParameter(
            "model: wan21-lightx2v takes no images to start from; shapes-flux would",
            param="model",
            code="not_an_editing_model",
        ),
        NO_MODEL,
        NO_FILE,
        NO_JOB,
        *OF_HELD,
    ),
    "create_video": (NO_MODEL, NO_FILE, *OF_LORAS, KEY_USED, FULL),
    "remix_video": (
        InvalidParameter(
            "model: model tiny-wan takes none; it starts from text alone", param="model", code="unsupported_parameter"
        ),
        NO_MODEL,
        NO_JOB,
        *OF_LORAS,
        NOT_READY,
        GONE,
        KEY_USED,
        FULL,
    ),
    "create_file": (
        InvalidParameter("file: must be an image or a video, got PDF", param="file"),
        InvalidRequest("seconds: Input should be a valid integer", param="seconds"),
        RateLimitExceeded(
            "file: the limit is 1000 files and 1000000000 bytes; delete some", param="file", code="files_full"
        ),
    ),
    "list_files": (),
    "get_file": (NO_FILE,),
    "download_file": (WRONG_RANGE, NO_FILE, GONE, NO_SUCH_BYTES),
    "delete_file": (NO_FILE,),
    "list_videos": (NOT_LISTED,),
    "get_video": (NO_JOB,),
    "delete_video": (NO_JOB,),
    "download_video": (
        InvalidParameter("variant: no spritesheet is made", param="variant", code="unsupported_parameter"),
        NO_JOB,
        NOT_READY,
        GONE,
        NO_SUCH_BYTES,
    ),
    "get_artifact": (
        WRONG_RANGE,
        Forbidden("the link was not signed by this server", code="invalid_signature"),
        Gone("the link has expired; get the job again for a new one"),
        NO_SUCH_BYTES,
    ),
    "list_models": (),
    "get_model": (NO_SUCH_MODEL,),
    "add_lora": (
        InvalidParameter(
            "file: it is truncated: 4 bytes of its tensors are missing", param="file", code="invalid_lora"
        ),
        NO_MODEL,
        Conflict("id: there is a LoRA 'style' already; delete it first", param="id", code="lora_exists"),
        Conflict("the limit is 100 LoRAs; delete one first", code="lora_limit"),
        NO_STORE,
    ),
    "list_loras": (NO_MODEL,),
    "get_lora": (NO_LORA,),
    "delete_lora": (
        NO_LORA,
        Conflict("1 job needs the LoRA 'style'; delete it when they have ended", code="lora_in_use"),
        Conflict("style is a LoRA of the catalog, which requests do not change", code="lora_of_catalog"),
        NO_STORE,
    ),
    "txt2img": (REFUSED_SCRIPT, NO_MODEL, NO_JOB, *OF_HELD),
    "img2img": (
        InvalidParameter("model: tiny takes no images to start from", param="model", code="not_an_editing_model"),
        REFUSED_SCRIPT,
        NO_MODEL,
        NO_FILE,
        NO_JOB,
        *OF_HELD,
    ),
    "get_progress": (),
    "interrupt": (),
    "get_options": (NO_MODEL,),
    "set_options": (NO_MODEL,),
    "get_png_info": (NO_FILE,),
    **dict.fromkeys(
        ("list_checkpoints", "list_samplers", "list_schedulers", "list_upscalers", "list_prompt_loras", "ping"), ()
    ),
    "get_queue": (),
    "get_health": (),
    "get_readiness": (NO_WORKER,),
    "get_metrics": (),
    "list_worker_targets": (UNREACHABLE, REFUSED),
}

OF_A_KEY = (
    InvalidApiKey("no such API key"),
    Forbidden("the API key batch lacks the scope generate"),
    RateLimitExceeded("Rate limit exceeded: 60 requests per minute for this API key", retry_after_s=7),
    UNREACHABLE,
    REFUSED,
)
OF_A_QUERY = (InvalidRequest("limitt: unknown parameter of the query; did you mean limit?", param="limitt"),)
OF_A_BODY = (
    InvalidParameter("width: must be 64 to 64, a multiple of 16 for model shapes-flux, not 63", param="width"),
    MalformedBody("the body is not JSON: Expecting value at character 1"),
    RequestTimeout("the body did not arrive within 30 s"),
    BodyTooLarge("a request body holds at most 1000000 bytes"),
    UnsupportedMediaType("content-type: must be application/json, got text/plain"),
    InvalidRequest("promt: unknown field", param="promt"),
)
ALWAYS = (ServiceError("an unexpected error; the server's log has it under this request's id"),)

TITLES = {
    400: "A value that cannot be honoured, or no JSON",
    401: "No API key, or none of ours",
    403: "A key without the scope",
    404: "Never was, is no longer kept, or is another tenant's",
    408: "A body that does not arrive",
    409: "Not now, not with this Idempotency-Key, or an id or room that is taken",
    410: "No longer kept",
    413: "A body too large",
    415: "A body of another content-type than the route takes",
    416: "None of the file's bytes",
    422: "Not the schema's shape",
    429: "A full queue, or a limit of the key",
    500: "The job's own failure, or an unexpected error",
    503: "No worker, no queue, or not done in time",
}
RETRY_AFTER = {"retry-after": {"description": "seconds", "schema": {"type": "integer", "minimum": 1, "maximum": 120}}}


def responses(method: str, path: str, operation: dict[str, Any]) -> dict[str, Any]:
    """Returns the responses of an operation with status 4xx and 5xx. Raises KeyError if a table lacks one."""
    found: dict[int, dict[str, ServiceError]] = {}
    for error in _errors(method, path, operation):
        found.setdefault(error.status, {})[error.error_code] = error
    return {str(status): _response(status, of.values()) for status, of in sorted(found.items())}


def examples() -> dict[str, Any]:
    """Returns a body of each error, by its code."""
    every = [error for errors in (*OWN.values(), OF_A_KEY, OF_A_QUERY, OF_A_BODY, ALWAYS) for error in errors]
    return {error.error_code: {"value": error.body()} for error in sorted(every, key=lambda each: each.error_code)}


def _errors(method: str, path: str, operation: dict[str, Any]) -> Iterable[ServiceError]:
    yield from OWN[operation["operationId"]]
    yield from OF_A_QUERY
    if needed(method.upper(), path) is not None:
        yield from OF_A_KEY
    if "requestBody" in operation:
        yield from OF_A_BODY
    yield from ALWAYS


def _response(status: int, errors: Iterable[ServiceError]) -> dict[str, Any]:
    examples = {error.error_code: {"$ref": f"#/components/examples/{error.error_code}"} for error in errors}
    schema = {"$ref": "#/components/schemas/ErrorBody"}
    response: dict[str, Any] = {
        "description": TITLES[status],
        "content": {"application/json": {"schema": schema, "examples": examples}},
    }
    if status in (429, 503):
        response["headers"] = RETRY_AFTER
    return response
