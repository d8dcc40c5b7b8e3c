"""The web API of AUTOMATIC1111's Stable Diffusion web UI, so that its clients work unmodified.

A request is read as one of this service, and takes the same way through the queue. This module has what other parts of
the API need to know of it; `routes` has the routes.
"""

from __future__ import annotations

from typing import Any

__all__ = ["PATH", "PING", "error_body", "owns"]

PATH = "/sdapi/v1"
#: Of the same web UI: some clients look here whether it runs.
PING = "/internal/ping"


def owns(path: str) -> bool:
    """Whether clients of that web UI ask for this path."""
    return path.startswith(f"{PATH}/") or path == PING


def error_body(body: dict[str, Any]) -> dict[str, Any]:
    """Returns the body of an error with the members that these clients show."""
    message = body["error"]["message"]
    return {**body, "detail": message, "body": "", "errors": message}
