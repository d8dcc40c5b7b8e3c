"""The files in a request's body, taken out of it before its fields are read.

A file of a form, or a data URL in JSON, is replaced in its field by a short text that names it. So neither the parsed
body nor a request that is held for minutes has the file's bytes.
"""

from __future__ import annotations

import binascii
import json
import re
from collections.abc import Mapping
from typing import Any

from fastapi import Request

from app.errors import InvalidParameter

__all__ = ["INPUT_FIELDS", "add_upload", "replace_data_urls", "take_uploads"]

#: The fields of requests that can hold a file.
INPUT_FIELDS = (
    "image", "images", "mask", "references", "first_frame", "last_frame", "video", "input_reference",
)  # fmt: skip
DATA_URL = re.compile(r"data:([a-z0-9.+/-]*)((?:;[^,;]*)*),", re.IGNORECASE)
QUOTED_DATA_URL = re.compile(rb'"data:', re.IGNORECASE)


def take_uploads(request: Request) -> Mapping[str, bytes]:
    """Returns the files of a request's body by the texts that stand for them; the request no longer holds them."""
    uploads: Mapping[str, bytes] = getattr(request.state, "inputs", {})
    request.state.inputs = {}
    return uploads


def add_upload(uploads: dict[str, bytes], data: bytes) -> str:
    """Adds a file and returns the text that stands for it."""
    name = f"upload:{len(uploads)}"
    uploads[name] = data
    return name


def replace_data_urls(body: bytes) -> tuple[bytes, dict[str, bytes]]:
    """Takes the data URLs out of the input fields of a JSON body; returns the rest, and the files.

    What is no JSON object is left as it is. Raises InvalidParameter for a data URL that cannot be decoded.
    """
    uploads: dict[str, bytes] = {}
    if QUOTED_DATA_URL.search(body) is None:
        return body, uploads
    try:
        fields = json.loads(body)
    except (ValueError, RecursionError):
        return body, uploads
    if not isinstance(fields, dict):
        return body, uploads
    for name in INPUT_FIELDS:
        if name in fields:
            fields[name] = _without_data_urls(fields[name], name, uploads)
    return json.dumps(fields).encode(), uploads


def _without_data_urls(value: Any, path: str, uploads: dict[str, bytes]) -> Any:
    if isinstance(value, str) and value[:5].lower() == "data:":
        return add_upload(uploads, _decode(value, path))
    if isinstance(value, list):
        return [_without_data_urls(part, f"{path}.{index}", uploads) for index, part in enumerate(value)]
    if isinstance(value, dict):
        return {name: _without_data_urls(part, f"{path}.{name}", uploads) for name, part in value.items()}
    return value


def _decode(url: str, path: str) -> bytes:
    head = DATA_URL.match(url)
    if head is None or not head[2].lower().endswith(";base64"):
        raise InvalidParameter(f"{path}: a data URL must be data:<media type>;base64,<data>", param=path)
    try:
        return binascii.a2b_base64(url[head.end() :].strip().encode("ascii"), strict_mode=True)
    except (ValueError, UnicodeEncodeError):
        raise InvalidParameter(f"{path}: the data URL is not valid base64", param=path) from None
