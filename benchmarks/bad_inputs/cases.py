"""The table. The service runs with the small limits of `LIMITS`, so that inputs beyond them are quick to send."""

from __future__ import annotations

import io
import struct
import zipfile
import zlib
from typing import Any

from benchmarks.bad_inputs.case import CLOSED, KEY, Case, get, post, raw

__all__ = ["CASES", "LIMITS"]

#: Settings of the API that the table is read on.
LIMITS = {
    "NAG_BODY_MAX_BYTES": "100000",
    "NAG_HEAD_MAX_BYTES": "16384",
    "NAG_READ_TIMEOUT_S": "1",
    "NAG_MODELS": "shapes-flux,wan21-lightx2v",
    "NAG_WEBHOOK_SECRET": "whsec_" + "A" * 32,
}

HOST = b"host: nag\r\n"
BEARER = f"authorization: Bearer {KEY}\r\n".encode()
JSON = b"content-type: application/json\r\n"
POST = b"POST /v1/jobs HTTP/1.1\r\n" + HOST + BEARER + JSON
GET = b"GET /v1/models HTTP/1.1\r\n" + HOST + BEARER
BODY = b'{"prompt": "a shape"}'
SECOND = b"GET /metrics HTTP/1.1\r\nhost: nag\r\n\r\n"
NO_JOB = "/v1/jobs/"


def _chunked(*chunks: bytes) -> bytes:
    return b"".join(b"%x\r\n%s\r\n" % (len(chunk), chunk) for chunk in chunks) + b"0\r\n\r\n"


def _png(width: int, height: int) -> bytes:
    """Returns an image that says it is this large, and is a few bytes."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    head = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(b"\0" * 1000)) + chunk(b"IEND", b"")
    )


def _zip() -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as bomb:
        bomb.writestr("../../etc/cron.d/a", b"\0" * 20_000_000)
    return file.getvalue()


def _form(*parts: tuple[str, bytes]) -> bytes:
    return b"".join(
        b"--b\r\ncontent-disposition: form-data; " + head.encode() + b"\r\n\r\n" + data + b"\r\n" for head, data in parts
    ) + b"--b--\r\n"  # fmt: skip


def _video(name: str, status: int, code: str, *parts: tuple[str, bytes]) -> Case:
    kind = "multipart/form-data; boundary=b"
    return post("files and forms", name, _form(*parts), status, code, path="/v1/videos", kind=kind)


PROMPT = ('name="prompt"', b"a shape")

HOOKS = (
    "http://169.254.169.254/latest/meta-data/", "http://127.0.0.1:6379/", "http://[::1]/", "http://[::ffff:10.0.0.1]/", "http://0/",
    "http://2130706433/", "file:///etc/passwd", "gopher://127.0.0.1:6379/_FLUSHALL", "unix:///tmp/valkey.sock", "http://user:pw@a.example/",
    "//evil.example/", "",
)  # fmt: skip
TYPES: list[tuple[str, dict[str, Any]]] = [
    ("a number for text", {"prompt": 7}), ("null for text", {"prompt": None}), ("a list for text", {"prompt": ["a"]}),
    ("text for a number", {"seed": "7"}), ("true for a number", {"num_inference_steps": True}),
    ("a fraction for a count", {"n": 1.5}), ("text for an object", {"nag": "strong"}), ("an unknown field", {"promt": "a"}),
    ("an unknown field within", {"nag": {"sacle": 5}}), ("a field of Python's", {"__class__": "x"}),
    ("an unknown choice", {"output_format": "exe"}), ("a choice in capitals", {"priority": "HIGH"}),
]  # fmt: skip
RANGES: list[tuple[str, dict[str, Any], int, str]] = [
    ("no images", {"n": 0}, 422, "invalid_request"), ("10^6 images", {"n": 10**6}, 422, "invalid_request"),
    ("a negative seed", {"seed": -1}, 422, "invalid_request"), ("a seed of 2^63", {"seed": 2**63}, 422, "invalid_request"),
    ("10^9 steps", {"num_inference_steps": 10**9}, 400, "invalid_parameter"),
    ("a width of 2^40", {"width": 2**40}, 400, "invalid_parameter"), ("a width off the grid", {"width": 65}, 400, "invalid_parameter"),
    ("NAG scale 0", {"nag": {"scale": 0}}, 400, "invalid_parameter"), ("NAG alpha 2", {"nag": {"alpha": 2}}, 400, "invalid_parameter"),
    ("a deadline in the past", {"deadline_s": -1}, 422, "invalid_request"),
    ("a deadline in 10^9 years", {"deadline_s": 3e16}, 400, "invalid_parameter"),
    ("frames of an image", {"num_frames": 9}, 400, "unsupported_parameter"),
]  # fmt: skip
UNICODE: list[tuple[str, dict[str, Any], int, str]] = [
    ("half a surrogate pair", {"prompt": "a \ud800"}, 422, "invalid_request"),
    ("half a pair as a field's name", {"\udfff": 1}, 422, "invalid_request"),
    ("NUL", {"prompt": "a\x00b"}, 202, ""), ("right to left, joiners, private use", {"prompt": "\u202e\u200d\ue000\U0010ffff"}, 202, ""),
    ("100,000 combining accents", {"prompt": "a" + "\u0301" * 9000}, 400, "invalid_parameter"),
    ("terminal escapes and line ends", {"prompt": "\x1b[2J\r\nlevel=error forged=1"}, 202, ""),
    ("a template", {"prompt": "{{7*7}} ${7*7} %s %n {0.__class__}"}, 202, ""),
    ("Lua and Redis", {"prompt": "'); redis.call('FLUSHALL') --\r\nFLUSHALL\r\n"}, 202, ""),
    ("40,000 letters", {"prompt": "x" * 40_000}, 400, "invalid_parameter"),
]  # fmt: skip
PATHS = [
    ("a file as a model", {"model": "/etc/passwd"}), ("a path as a model", {"model": "../../../../etc/passwd"}),
    ("a URL as a model", {"model": "http://169.254.169.254/latest/meta-data/"}), ("file: as a model", {"model": "file:///etc/passwd"}),
    ("NUL in a model's name", {"model": "shapes-flux\x00.png"}), ("a model of the hub", {"model": "me/my-weights"}),
]  # fmt: skip
JSONS = [
    ("not closed", b'{"prompt": "a"', 400, "malformed_body"), ("not UTF-8", b'{"prompt": "\xff\xfe"}', 400, "malformed_body"),
    ("UTF-16", '{"prompt": "a"}'.encode("utf-16"), 400, "malformed_body"), ("a byte order mark", b"\xef\xbb\xbf" + BODY, 202, ""),
    ("NaN", b'{"prompt": "a", "guidance_scale": NaN}', 400, "invalid_parameter"),
    ("Infinity", b'{"prompt": "a", "nag": {"scale": Infinity}}', 400, "invalid_parameter"),
    ("1e999", b'{"prompt": "a", "nag": {"tau": 1e999}}', 400, "invalid_parameter"),
    ("a number of 5,000 digits", b'{"prompt": "a", "seed": ' + b"9" * 5000 + b"}", 400, "malformed_body"),
    ("90,000 nested lists", b"[" * 90_000, 400, "malformed_body"),
    ("9,000 nested objects", b'{"nag":' * 9000 + b"1" + b"}" * 9000, 400, "malformed_body"),
    ("a key twice", b'{"prompt": "a", "prompt": "b"}', 400, "malformed_body"),
    ("a key twice within", b'{"prompt": "a", "nag": {"scale": 5, "scale": 9}}', 400, "malformed_body"),
    ("a list", b"[]", 422, "invalid_request"), ("null", b"null", 422, "invalid_request"), ("nothing", b"", 422, "invalid_request"),
    ("a string", b'"prompt"', 422, "invalid_request"), ("a comment", b'{"prompt": "a" /* b */}', 400, "malformed_body"),
]  # fmt: skip

CASES: list[Case] = [
    *(post("types", name, body, 422, "invalid_request") for name, body in TYPES),
    *(post("ranges", name, body, status, code) for name, body, status, code in RANGES),
    *(post("unicode", name, body, status, code) for name, body, status, code in UNICODE),
    *(post("paths and URLs", name, body, 400, "model_not_found") for name, body in PATHS),
    *(post("JSON", name, body, status, code) for name, body, status, code in JSONS),
    get("paths and URLs", "a path as a job", NO_JOB + "..%2f..%2f..%2fetc%2fpasswd/result", 404, "not_found"),
    get("paths and URLs", "dots as a job", NO_JOB + "../../etc/passwd", 404, "not_found"),
    get("paths and URLs", "dots past the docs", "/docs/swagger/..%2f..%2f..%2fetc/passwd", 404, "not_found"),
    get("paths and URLs", "two slashes", "//v1/jobs", 404, "not_found"),
    get("paths and URLs", "a pattern as a job", NO_JOB + "*", 404, "not_found"),
    get("paths and URLs", "line ends in a job's id", NO_JOB + "a%0d%0aset-cookie:%20b", 404, "not_found"),
    get("paths and URLs", "NUL in a path", "/v1/models/%00", 404, "model_not_found"),
    get("paths and URLs", "bytes that are no UTF-8 in a path", NO_JOB + "%ff%fe", 404, "not_found"),
    get("paths and URLs", "another server's URL as the target", "http://169.254.169.254/latest", 404, "not_found"),
    get("paths and URLs", "a query that is not known", NO_JOB + "a/result?path=/etc/passwd", 422, "invalid_request"),
    get("paths and URLs", "a link that was not signed", "/v1/artifacts/a-0.png?expires=9999999999&signature=AAAA", 403, "invalid_signature"),
    get("paths and URLs", "a path in a link", "/v1/artifacts/..%2f..%2fetc%2fpasswd?expires=1&signature=AAAA", 404, "not_found"),
    *(post("paths and URLs", f"a webhook to {url or chr(39) * 2}", {"webhook": {"url": url}}, 400, "webhook_url_refused") for url in HOOKS),
    post("files and forms", "a zip bomb as JSON", _zip(), 400, "malformed_body"),
    post("files and forms", "a zip bomb as itself", _zip(), 415, "unsupported_media_type", kind="application/zip"),
    post("files and forms", "gzip of 20 MB", zlib.compress(b" " * 20_000_000), 400, "malformed_body", content_encoding="gzip"),
    _video("an image of 60,000 by 60,000", 400, "unsupported_parameter", PROMPT,
           ('name="input_reference"; filename="a.png"', _png(60_000, 60_000))),
    _video("a program as an image", 400, "unsupported_parameter", PROMPT,
           ('name="input_reference"; filename="../../a.sh"', b"#!/bin/sh\n")),
    _video("300 fields", 400, "malformed_body", *([PROMPT] * 300)),
    _video("a field twice", 422, "invalid_request", PROMPT, PROMPT),
    post("files and forms", "a form without a boundary", b"x", 400, "malformed_body", path="/v1/videos", kind="multipart/form-data"),
    post("files and forms", "a form that does not end", _form(PROMPT)[:-8], 422, "invalid_request", path="/v1/videos",
         kind="multipart/form-data; boundary=b"),
    post("content", "text", BODY, 415, "unsupported_media_type", kind="text/plain"),
    post("content", "no type", BODY, 415, "unsupported_media_type", kind=""),
    post("content", "XML", b"<!DOCTYPE a [<!ENTITY b SYSTEM 'file:///etc/passwd'>]><a>&b;</a>", 415, "unsupported_media_type",
         kind="application/xml"),
    post("content", "two types", BODY, 415, "unsupported_media_type", kind="text/plain, application/json"),
    post("content", "a form where there is none", _form(PROMPT), 415, "unsupported_media_type", kind="multipart/form-data; boundary=b"),
    post("size and time", "a body beyond the limit", b'{"prompt": "' + b"x" * 100_000 + b'"}', 413, "body_too_large"),
    raw("size and time", "a length of 10^18", POST + b"content-length: 1000000000000000000\r\n\r\n", 413, "body_too_large"),
    raw("size and time", "chunks beyond the limit", POST + b"transfer-encoding: chunked\r\n\r\n" + _chunked(*[b"x" * 9999] * 11), 413,
        "body_too_large"),
    raw("size and time", "a body that does not come", POST + b"content-length: 9\r\n\r\n{", 408, "request_timeout"),
    raw("size and time", "a chunk that does not come", POST + b"transfer-encoding: chunked\r\n\r\n9\r\n{", 408, "request_timeout"),
    raw("size and time", "a head that does not end", GET, 408, "request_timeout"),
    raw("size and time", "half a request line", b"GE", 408, "request_timeout"),
    raw("size and time", "nothing at all", b"", CLOSED),
    raw("headers", "one of 20,000 bytes", GET + b"x: " + b"y" * 20_000 + b"\r\n\r\n", 431, "head_too_large"),
    raw("headers", "one without end", GET + b"x: " + b"y" * 60_000, 431, "head_too_large"),
    raw("headers", "150 of them", GET + b"x: y\r\n" * 150 + b"\r\n", 431, "head_too_large"),
    get("headers", "a URL of 20,000 bytes", "/v1/models?" + "a" * 20_000, 431, "head_too_large"),
    raw("headers", "NUL in a value", GET + b"x: a\x00b\r\n\r\n", 400, "malformed_request"),
    raw("headers", "a space in a name", GET + b"x y: a\r\n\r\n", 400, "malformed_request"),
    raw("headers", "a space before the colon", GET + b"x : a\r\n\r\n", 400, "malformed_request"),
    raw("headers", "no name", GET + b": a\r\n\r\n", 400, "malformed_request"),
    raw("headers", "folded", GET + b"x: a\r\n b\r\n\r\n", 400, "malformed_request"),
    raw("headers", "a carriage return alone", GET + b"x: a\rset-cookie: b\r\n\r\n", 400, "malformed_request"),
    raw("headers", "line feeds alone", b"GET /v1/models HTTP/1.1\nhost: nag\n\n", 400, "malformed_request"),
    raw("headers", "no host", b"GET /v1/models HTTP/1.1\r\n" + BEARER + b"\r\n", 400, "malformed_request"),
    raw("headers", "two hosts", GET + b"host: other\r\n\r\n", 400, "malformed_request"),
    raw("headers", "a host with a path", b"GET /healthz HTTP/1.1\r\nhost: a/../b\r\n\r\n", 400, "malformed_request"),
    get("headers", "an id for the log to forge", "/healthz", 200, x_request_id="a\\n level=error"),
    get("headers", "a client that says who it is", "/metrics", 401, "missing_api_key", authorization="", x_forwarded_for="127.0.0.1"),
    get("headers", "another method in a header", "/v1/models", 200, x_http_method_override="DELETE"),
    get("headers", "a million ranges", NO_JOB + "a/result", 404, "not_found", range="bytes=" + ",".join(["0-"] * 3000)),
    post("headers", "an Idempotency-Key of 300 letters", {}, 400, "invalid_parameter", idempotency_key="k" * 300),
    post("headers", "an Idempotency-Key in Cyrillic", {}, 400, "invalid_parameter", idempotency_key="ключ"),
    post("headers", "a wait of 10^9 seconds that is none", {}, 400, "invalid_parameter", prefer="wait=1e9"),
    get("headers", "an event's id that is none", NO_JOB + "a/events", 400, "invalid_parameter", last_event_id="$; FLUSHALL"),
    post("headers", "a page of another site", {}, 403, "forbidden_origin", origin="https://evil.example"),
    get("keys", "none", "/v1/models", 401, "missing_api_key", authorization=""),
    get("keys", "a wrong one", "/v1/models", 401, "invalid_api_key", authorization="Bearer nag_wrong"),
    get("keys", "its beginning", "/v1/models", 401, "invalid_api_key", authorization=f"Bearer {KEY[:-1]}"),
    get("keys", "another scheme", "/v1/models", 401, "invalid_api_key", authorization="Basic Zm9yOmE="),
    get("keys", "not ASCII", "/v1/models", 401, "invalid_api_key", authorization="Bearer schlüssel"),
    raw("keys", "two", GET + BEARER + b"\r\n", 401, "invalid_api_key"),
    get("keys", "in the query", f"/v1/models?api_key={KEY}", 401, "missing_api_key", authorization=""),
    post("keys", "none, beside a large body", b"x" * 90_000, 401, "missing_api_key", authorization=""),
    get("methods", "TRACE", "/v1/models", 405, "method_not_allowed", method="TRACE"),
    get("methods", "one of WebDAV", "/v1/models", 405, "method_not_allowed", method="PROPFIND"),
    get("methods", "one that is none", "/v1/models", 400, "malformed_request", method="STEAL"),
    get("methods", "CONNECT", "169.254.169.254:80", 400, "malformed_request", method="CONNECT"),
    get("methods", "DELETE on all jobs", "/v1/jobs", 405, "method_not_allowed", method="DELETE"),
    get("methods", "in small letters", "/v1/models", 400, "malformed_request", method="get"),
    raw("methods", "an upgrade to a WebSocket", GET + b"connection: upgrade\r\nupgrade: websocket\r\nsec-websocket-version: 13\r\n"
        b"sec-websocket-key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n", 200),
    raw("methods", "HTTP/2 by prior knowledge", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 400, "malformed_request"),
    raw("methods", "HTTP/9.9", b"GET /healthz HTTP/9.9\r\nhost: nag\r\n\r\n", 400, "malformed_request"),
    raw("methods", "TLS", b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", 400, "malformed_request"),
    raw("methods", "Redis", b"*1\r\n$8\r\nFLUSHALL\r\n", 400, "malformed_request"),
    raw("smuggling", "a length and chunks", POST + b"content-length: 5\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n" + SECOND, 400,
        "malformed_request"),
    raw("smuggling", "chunks and a length", POST + b"transfer-encoding: chunked\r\ncontent-length: 5\r\n\r\n0\r\n\r\n" + SECOND, 400,
        "malformed_request"),
    raw("smuggling", "two lengths", POST + b"content-length: 21\r\ncontent-length: 5\r\n\r\n" + BODY + SECOND, 400, "malformed_request"),
    raw("smuggling", "two lengths in one", POST + b"content-length: 21, 5\r\n\r\n" + BODY + SECOND, 400, "malformed_request"),
    raw("smuggling", "a length with a sign", POST + b"content-length: +21\r\n\r\n" + BODY, 400, "malformed_request"),
    raw("smuggling", "a length in hexadecimal", POST + b"content-length: 0x15\r\n\r\n" + BODY, 400, "malformed_request"),
    raw("smuggling", "chunked, spelt otherwise", POST + b"transfer-encoding: xchunked\r\n\r\n" + _chunked(BODY), 400, "malformed_request"),
    raw("smuggling", "chunked, and then another", POST + b"transfer-encoding: chunked, identity\r\n\r\n" + _chunked(BODY), 400,
        "malformed_request"),
    raw("smuggling", "chunked behind a tabulator", POST + b"transfer-encoding:\x0bchunked\r\n\r\n" + _chunked(BODY) + SECOND, 400,
        "malformed_request"),
    raw("smuggling", "a chunk's size beyond 64 bits", POST + b"transfer-encoding: chunked\r\n\r\n" + b"f" * 20 + b"\r\n", 400,
        "malformed_request"),
    raw("smuggling", "a chunk's size with a sign", POST + b"transfer-encoding: chunked\r\n\r\n-1\r\n" + BODY, 400, "malformed_request"),
    raw("smuggling", "a chunk longer than it says", POST + b"transfer-encoding: chunked\r\n\r\n5\r\n" + BODY + b"\r\n0\r\n\r\n", 400,
        "malformed_request"),
    raw("smuggling", "a body on GET that is a request", b"GET /v1/models HTTP/1.1\r\n" + HOST + BEARER
        + b"content-length: %d\r\n\r\n" % len(SECOND) + SECOND, 415, "unsupported_media_type"),
]  # fmt: skip
