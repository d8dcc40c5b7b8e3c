"""A stored file as an answer."""

from __future__ import annotations

from fastapi.responses import FileResponse
from starlette.types import Message, Receive, Scope, Send

from app.api.errors import error_response
from app.api.service import Service
from app.errors import Expired, InvalidParameter, RangeNotSatisfiable
from app.jobs import Artifact

__all__ = ["StoredFile", "stored"]


def stored(service: Service, job_id: str, artifact: Artifact, headers: dict[str, str]) -> StoredFile:
    """The answer that is this artifact. Raises Expired."""
    path = service.artifacts.path(artifact.name)
    try:
        stat = path.stat()
    except FileNotFoundError as exc:
        raise Expired(f"the result of job {job_id} is no longer kept") from exc
    return StoredFile(path, headers=headers, media_type=artifact.media_type, stat_result=stat)


class StoredFile(FileResponse):
    """The bytes, or the `Range` of them that is asked for; one that cannot be given is refused in the error body."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        refused: int | None = None

        async def unless_refused(message: Message) -> None:
            nonlocal refused
            if message["type"] == "http.response.start" and message["status"] >= 400:
                refused = message["status"]
            if refused is None:
                await send(message)

        await super().__call__(scope, receive, unless_refused)
        if refused is None:
            return
        size_bytes = self.headers["content-length"]
        if refused == RangeNotSatisfiable.status:
            response = error_response(RangeNotSatisfiable(f"Range: the file has {size_bytes} bytes", param="Range"))
            response.headers["content-range"] = f"bytes */{size_bytes}"
        else:
            response = error_response(InvalidParameter("Range: must be bytes=first-last", param="Range"))
        await response(scope, receive, send)
