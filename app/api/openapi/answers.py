"""The parts of answers that no signature states: headers that are read elsewhere, and bodies that are not JSON."""

from __future__ import annotations

from typing import Any

from app.api.requests.fields import WARNINGS
from app.formats import IMAGES, VIDEOS

__all__ = ["complete"]

FILE = {"type": "string", "format": "binary"}
EVENTS = {"text/event-stream": {"schema": {"type": "string"}}}
#: By operationId, the media types that a file of it has.
FILES: dict[str, tuple[str, ...]] = {
    "get_artifact": (*IMAGES.values(), *VIDEOS.values()),
    "download_file": ("application/octet-stream",),
    "get_job_result": (*IMAGES.values(), *VIDEOS.values()),
    "download_video": (*VIDEOS.values(), IMAGES["jpeg"]),
}
STREAMS = ("stream_job_events",)
RANGE = {
    "name": "Range",
    "in": "header",
    "required": False,
    "description": "bytes=first-last: this part alone",
    "schema": {"type": "string"},
}
IDEMPOTENCY_KEY = {
    "name": "Idempotency-Key",
    "in": "header",
    "required": False,
    "description": "the same key and body again: the same job, not another",
    "schema": {"type": "string"},
}
#: Operations whose answers have `warnings`.
WARNED = (
    "create_job",
    "get_job",
    "cancel_job",
    "create_image",
    "edit_image",
    "create_video",
    "remix_video",
    "get_video",
)
WARNING_HEADER = {
    WARNINGS: {"description": "the warnings, as JSON strings with commas; absent: none", "schema": {"type": "string"}}
}
POLL = {"openai-poll-after-ms": {"description": "when to ask again", "schema": {"type": "integer"}}}


def complete(operation: dict[str, Any]) -> None:
    """Adds them to an operation that gives them."""
    name, answers = operation["operationId"], operation["responses"]
    if name in FILES:
        content = {kind: {"schema": FILE} for kind in FILES[name]}
        operation.setdefault("parameters", []).append(RANGE)
        answers["200"] = {"description": "The file", "content": content}
        headers = {"content-range": {"description": "bytes first-last/size", "schema": {"type": "string"}}}
        answers["304"] = {"description": "It is what If-None-Match names"}
        answers["206"] = {"description": "The part that was asked for", "content": content, "headers": headers}
    if name in STREAMS:
        answers["200"] = {"description": "Each event's data is a JobEvent", "content": EVENTS}
    if name in ("create_image", "edit_image"):
        answers["200"]["content"] |= EVENTS
        answers["200"]["description"] = "The images; with stream: ImagePartialEvent, ImageCompletedEvent, Error"
    if name in ("create_image", "edit_image", "create_video", "remix_video"):
        operation.setdefault("parameters", []).append(IDEMPOTENCY_KEY)
    if name in ("create_video", "get_video"):
        answers["200"]["headers"] = {**POLL}
    if name == "create_job":
        answers["202"]["headers"] = {"location": {"description": "of the job", "schema": {"type": "string"}}}
    if name in WARNED:
        for status in answers.keys() & {"200", "202"}:
            answers[status].setdefault("headers", {}).update(WARNING_HEADER)
    if name == "get_metrics":
        answers["200"]["content"] = {"text/plain": {"schema": {"type": "string"}}}
