"""Sends a stored file: streamed in parts, or the range of it that the client asks for."""

from __future__ import annotations

import re
from collections.abc import Mapping
from email.utils import format_datetime

from fastapi import Request, Response
from fastapi.responses import StreamingResponse

from app.api.responses.errors import error_response
from app.artifacts import Artifacts, StoredFile
from app.artifacts.naming import media_type
from app.errors import Gone, InvalidParameter, RangeNotSatisfiable

__all__ = ["file_response"]

_RANGE = re.compile(r"([0-9]{0,18})-([0-9]{0,18})")


async def file_response(
    request: Request, artifacts: Artifacts, name: str, headers: Mapping[str, str] | None = None
) -> Response:
    """Returns the bytes, or the requested `Range` of them. Raises Gone; InvalidParameter for an invalid range."""
    try:
        found = await artifacts.find(name)
    except FileNotFoundError as exc:
        raise Gone("the file is no longer kept") from exc
    said = {
        **(headers or {}),
        "accept-ranges": "bytes",
        "content-disposition": f'inline; filename="{name}"',
        "last-modified": format_datetime(found.modified_at, usegmt=True),
    }
    if found.etag is not None:
        said["etag"] = found.etag
    if found.etag is not None and found.etag in request.headers.get("if-none-match", ""):
        return Response(status_code=304, headers=said)
    try:
        part = _part(request, found, said["last-modified"])
    except RangeNotSatisfiable as error:
        response = error_response(error, request.url.path)
        response.headers["content-range"] = f"bytes */{found.size_bytes}"
        return response
    first, end = part or (0, found.size_bytes)
    said["content-length"] = str(end - first)
    if part is not None:
        said["content-range"] = f"bytes {first}-{end - 1}/{found.size_bytes}"
    status = 200 if part is None else 206
    if first == end:
        return Response(status_code=status, headers=said, media_type=media_type(name))
    return StreamingResponse(artifacts.stream(name, first, end), status, said, media_type(name))


def _part(request: Request, found: StoredFile, modified: str) -> tuple[int, int] | None:
    """Returns the first byte and the one behind the last; None for all of them, which also answers several ranges at
    once.
    """
    asked = request.headers.get("range")
    if asked is None or request.headers.get("if-range") not in (None, found.etag, modified):
        return None
    unit, equals, text = asked.partition("=")
    if unit.strip().lower() != "bytes" or not equals:
        raise InvalidParameter("Range: must be bytes=first-last", param="Range")
    if "," in text:
        return None
    size, match = found.size_bytes, _RANGE.fullmatch(text.strip())
    if match is None or match[0] == "-":
        raise InvalidParameter("Range: must be bytes=first-last", param="Range")
    if not match[1]:
        first, end = max(0, size - int(match[2])), size
    else:
        first, end = int(match[1]), min(size, int(match[2]) + 1) if match[2] else size
        if match[2] and int(match[2]) < first:
            raise InvalidParameter("Range: must be bytes=first-last", param="Range")
    if first >= end:
        raise RangeNotSatisfiable(f"Range: the file has {size} bytes", param="Range")
    return first, end
