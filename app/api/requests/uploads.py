"""The files in a request's body, taken out of it before its fields are read.

A file of a form, or a data URL in JSON, is replaced in its field by a short text that names it. So neither the parsed
body nor a request that is held for minutes has the file's bytes.
"""

from __future__ import annotations

import binascii
import json
import re
import secrets
from collections.abc import Mapping
from typing import Any

from fastapi import Request

from app.errors import InvalidParameter

__all__ = [
    "INPUT_FIELDS", "add_upload", "decode_data_url", "replace_data_urls", "take_uploads", "without_data_urls",
]  # fmt: skip

#: The fields of requests that can hold a file.
INPUT_FIELDS = (
    "image", "images", "mask", "references", "first_frame", "last_frame", "video", "input_reference",
)  # fmt: skip
DATA_URL = re.compile(r"data:([a-z0-9.+/-]*)((?:;[^,;]*)*),", re.IGNORECASE)
QUOTED_DATA_URL = re.compile(rb'"data:', re.IGNORECASE)
#: A value of valid JSON that is a data URL in base64. Its slashes may be escaped.
BASE64_STRING = re.compile(
    rb'(?<!\\)"data:[a-z0-9.+/-]*(?:;[^",;\\]*)*;base64,([a-z0-9+/=\\]*)"(?=\s*[,\]}])', re.IGNORECASE
)
#: Begins the texts that stand for files. Nobody outside this process knows it.
MARK = f"upload-{secrets.token_hex(8)}:"
NONE_CUT: Mapping[str, re.Match[bytes]] = {}


def take_uploads(request: Request) -> Mapping[str, bytes]:
    """Returns the files of a request's body by the texts that stand for them; the request no longer holds them."""
    uploads: Mapping[str, bytes] = getattr(request.state, "inputs", {})
    request.state.inputs = {}
    return uploads


def add_upload(uploads: dict[str, bytes], data: bytes) -> str:
    """Adds a file and returns the text that stands for it."""
    name = f"{MARK}{len(uploads)}"
    uploads[name] = data
    return name


def replace_data_urls(body: bytes) -> tuple[bytes, dict[str, bytes]]:
    """Takes the data URLs out of the input fields of a JSON body; returns the rest, and the files.

    Each is decoded from where it stands in the body, and only the rest is parsed. What is no JSON object is left as it
    is. Raises InvalidParameter for a data URL that cannot be decoded.
    """
    uploads: dict[str, bytes] = {}
    if QUOTED_DATA_URL.search(body) is None:
        return body, uploads
    strings: dict[str, re.Match[bytes]] = {}
    rest, end = list[bytes](), 0
    for string in BASE64_STRING.finditer(body):
        name = f"{MARK}string-{len(strings)}"
        strings[name] = string
        rest += [body[end : string.start()], f'"{name}"'.encode()]
        end = string.end()
    try:
        fields = json.loads(b"".join([*rest, body[end:]]))
    except (ValueError, RecursionError):
        return body, uploads
    if not isinstance(fields, dict):
        return body, uploads
    for field, value in fields.items():
        take = uploads if field in INPUT_FIELDS else None
        fields[field] = without_data_urls(value, field, take, strings)
    return json.dumps(fields).encode(), uploads


def without_data_urls(
    value: Any, path: str, uploads: dict[str, bytes] | None, strings: Mapping[str, re.Match[bytes]] = NONE_CUT
) -> Any:
    """Decodes the data URLs in a value of JSON into `uploads`, and returns it with the texts that stand for them.

    `strings` are those that were cut out of a body, by the texts in their places; without `uploads` they are put back.
    Raises InvalidParameter for one that cannot be decoded.
    """
    if isinstance(value, str):
        if uploads is None:
            return json.loads(strings[value][0]) if value in strings else value
        if value in strings:
            uploads[value] = _decode(strings[value], path)
        elif value[:5].lower() == "data:":
            return add_upload(uploads, decode_data_url(value, path))
        return value
    if isinstance(value, list):
        return [without_data_urls(part, f"{path}.{index}", uploads, strings) for index, part in enumerate(value)]
    if isinstance(value, dict):
        return {name: without_data_urls(part, f"{path}.{name}", uploads, strings) for name, part in value.items()}
    return value


def _decode(string: re.Match[bytes], path: str) -> bytes:
    data = memoryview(string.string)[string.start(1) : string.end(1)]
    if string.string.find(b"\\", *string.span(1)) >= 0:
        data = memoryview(bytes(data).replace(b"\\/", b"/"))
    try:
        return binascii.a2b_base64(data, strict_mode=True)
    except ValueError:
        raise InvalidParameter(f"{path}: the data URL is not valid base64", param=path) from None


def decode_data_url(url: str, path: str) -> bytes:
    """Returns the bytes of a data URL. Raises InvalidParameter; `path` is the field's."""
    head = DATA_URL.match(url)
    if head is None or not head[2].lower().endswith(";base64"):
        raise InvalidParameter(f"{path}: a data URL must be data:<media type>;base64,<data>", param=path)
    try:
        return binascii.a2b_base64(url[head.end() :].strip().encode("ascii"), strict_mode=True)
    except (ValueError, UnicodeEncodeError):
        raise InvalidParameter(f"{path}: the data URL is not valid base64", param=path) from None
