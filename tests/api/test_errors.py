"""Each refusal over a real socket: a clear 4xx, the one body, an id, and nothing queued."""

from __future__ import annotations

import asyncio
import base64
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from PIL import Image

from app.api.middleware import early_response
from app.api.service import Service
from app.queue.queue import Queue
from app.settings import Settings
from tests.api.support import FakeWorker, serving
from tests.pictures import png
from tests.queue.servers import valkey

#: Of one pixel.
PNG = f"data:image/png;base64,{base64.b64encode(png(Image.new('RGB', (1, 1)))).decode()}"
JOBS, IMAGES = "/v1/jobs", "/v1/images/generations"
CANCEL = "/v1/jobs/job_0/cancel"  # a path whose bodies hold no files
JSON = {"content-type": "application/json"}


def check(answer: httpx.Response, status: int, code: str, param: str | None) -> None:
    error = answer.json()["error"]
    assert (answer.status_code, error["code"], error["param"]) == (status, code, param), error
    assert set(answer.json()) == {"error"}
    assert set(error) == {"message", "type", "param", "code"}
    assert error["type"] in ("invalid_request_error", "rate_limit_error", "server_error")
    assert error["message"]
    assert answer.headers["x-request-id"]


REFUSED: list[tuple[dict[str, Any], int, str, str | None]] = [
    ({"width": 63}, 400, "invalid_parameter", "width"),
    ({"height": 128}, 400, "invalid_parameter", "height"),
    ({"num_inference_steps": 0}, 400, "invalid_parameter", "num_inference_steps"),
    ({"num_inference_steps": 10**30}, 400, "invalid_parameter", "num_inference_steps"),
    ({"num_inference_steps": True}, 422, "invalid_request", "num_inference_steps"),
    ({"num_inference_steps": "4"}, 422, "invalid_request", "num_inference_steps"),
    ({"guidance_scale": 0.5}, 400, "invalid_parameter", "guidance_scale"),
    ({"prompt": "x" * 40_000}, 400, "invalid_parameter", "prompt"),
    ({"negative_prompt": "x" * 40_000}, 400, "invalid_parameter", "negative_prompt"),
    ({"prompt": None}, 422, "invalid_request", "prompt"),
    ({"prompt": "\ud800"}, 422, "invalid_request", "prompt"),
    ({"model": "flux-99"}, 400, "model_not_found", "model"),
    ({"model": "\x00"}, 400, "model_not_found", "model"),
    ({"promt": "a shape"}, 422, "invalid_request", "promt"),
    ({"\ud800": 1}, 422, "invalid_request", None),
    ({"n": 0}, 422, "invalid_request", "n"),
    ({"n": 11}, 422, "invalid_request", "n"),
    ({"seed": -1}, 422, "invalid_request", "seed"),
    ({"seed": 2**63}, 422, "invalid_request", "seed"),
    ({"seed": 2**63 - 1, "n": 2}, 400, "invalid_parameter", "seed"),
    ({"output_format": "gif"}, 422, "invalid_request", "output_format"),
    ({"output_compression": 50}, 400, "unsupported_parameter", "output_compression"),
    ({"nag": {"scale": 0.5}}, 400, "invalid_parameter", "nag.scale"),
    ({"nag": {"scale": 101}}, 400, "invalid_parameter", "nag.scale"),
    ({"nag": {"tau": 0.9}}, 400, "invalid_parameter", "nag.tau"),
    ({"nag": {"alpha": 1.01}}, 400, "invalid_parameter", "nag.alpha"),
    ({"nag": {"end": -0.01}}, 400, "invalid_parameter", "nag.end"),
    ({"nag": {"scale_decay": 1.1}}, 400, "invalid_parameter", "nag.scale_decay"),
    ({"nag": {"anneal": 1.1}}, 400, "invalid_parameter", "nag.anneal"),
    ({"nag": {"anneal": 1, "scale_decay": 0.5}}, 400, "invalid_parameter", "nag.anneal"),
    ({"nag": {"start": 1.1}}, 400, "invalid_parameter", "nag.start"),
    ({"nag": {"start": 0.5, "end": 0.5}}, 400, "invalid_parameter", "nag.start"),
    ({"nag": {"method": "apg"}}, 422, "invalid_request", "nag.method"),
    ({"nag": {"sacle": 5}}, 422, "invalid_request", "nag.sacle"),
    ({"nag": {"scale": "5"}}, 422, "invalid_request", "nag.scale"),
    ({"nag": {"negative_prompt": "x" * 40_000}}, 400, "invalid_parameter", "nag.negative_prompt"),
    ({"nag": 5}, 422, "invalid_request", "nag"),
]


@pytest.fixture
async def quiet(api: httpx.AsyncClient, queue: Queue) -> AsyncIterator[httpx.AsyncClient]:
    """The API, with the check that nothing was queued and it still serves."""
    yield api
    assert await queue.depth("shapes-flux") == 0
    assert (await api.post(JOBS, json={"prompt": "a shape"})).status_code == 202


@pytest.mark.parametrize("route", [JOBS, IMAGES])
async def test_what_the_model_cannot_take(quiet: httpx.AsyncClient, route: str) -> None:
    for change, status, code, param in REFUSED:
        body = json.dumps({"prompt": "a shape", **change})
        check(await quiet.post(route, content=body, headers=JSON), status, code, param)


MEANT: list[tuple[str, dict[str, Any], str]] = [
    (JOBS, {"nag_scale": 5}, "did you mean nag.scale?"),
    (JOBS, {"nag_sigma_end": 0.5}, "did you mean nag.end, a share"),
    (JOBS, {"nag_phi": 4}, "did you mean nag.scale, which is phi + 1?"),
    (JOBS, {"nag": {"nag_tau": 2.5}}, "did you mean nag.tau?"),
    (JOBS, {"nag": {"sacle": 5}}, "did you mean nag.scale?"),
    (JOBS, {"nag": {"negative": "red"}}, "did you mean nag.negative_prompt?"),
    (JOBS, {"scale": 5}, "did you mean nag.scale?"),
    (JOBS, {"cfg_scale": 5}, "did you mean guidance_scale?"),
    (JOBS, {"Steps": 5}, "did you mean num_inference_steps?"),
    (JOBS, {"num_images": 5}, "did you mean n?"),
    (JOBS, {"promt": "a shape"}, "did you mean prompt?"),
    (IMAGES, {"respons_format": "url"}, "did you mean response_format?"),
    (IMAGES, {"nag_sclae": 5}, "did you mean nag_scale?"),
    (JOBS, {"zzz": 5}, "zzz: unknown field"),
    (JOBS, {"nag": {"scale": 0}}, "nag.scale: must be 1 to 100, not 0.0; 1 is off"),
    (IMAGES, {"nag_scale": 0}, "nag_scale: must be 1 to 100, not 0.0; 1 is off"),
    (JOBS, {"guidance_scale": 0}, "; 1 is off"),
    (JOBS, {"seed": -1}, "leave it out to have one drawn"),
    (JOBS, {"deadline_s": 0}, "leave it out to have none"),
]


@pytest.mark.parametrize(("route", "change", "text"), MEANT)
async def test_an_error_says_what_is_likely_meant(
    quiet: httpx.AsyncClient, route: str, change: dict[str, Any], text: str
) -> None:
    answer = await quiet.post(route, json={"prompt": "a shape", **change})
    message = answer.json()["error"]["message"]
    assert answer.status_code in (400, 422)
    assert text in message
    assert ("did you mean" in message) == ("did you mean" in text)


RAW: list[tuple[bytes, dict[str, str], int, str, str | None]] = [
    (b"{", JSON, 400, "malformed_body", None),
    (b'{"prompt": "\xff"}', JSON, 400, "malformed_body", None),
    (b"[" * 100_000, JSON, 400, "malformed_body", None),
    (b'{"prompt": "a", "seed": ' + b"9" * 5000 + b"}", JSON, 400, "malformed_body", None),
    (b'{"prompt": "a", "guidance_scale": NaN}', JSON, 400, "invalid_parameter", "guidance_scale"),
    (b'{"prompt": "a", "guidance_scale": 1e999}', JSON, 400, "invalid_parameter", "guidance_scale"),
    (b'{"prompt": "a", "nag": {"scale": 1e999}}', JSON, 400, "invalid_parameter", "nag.scale"),
    (b'{"prompt": "a", "nag": {"tau": NaN}}', JSON, 400, "invalid_parameter", "nag.tau"),
    (b'{"prompt": "a", "nag": {"tau": 1' + b"0" * 400 + b"}}", JSON, 422, "invalid_request", "nag.tau"),
    (b"", JSON, 422, "invalid_request", None),
    (b"[]", JSON, 422, "invalid_request", None),
    (b"null", JSON, 422, "invalid_request", None),
    (b'{"prompt": "a"}', {"content-type": "text/plain"}, 415, "unsupported_media_type", None),
    (b'{"prompt": "a"}', {}, 415, "unsupported_media_type", None),
]


@pytest.mark.parametrize(("body", "headers", "status", "code", "param"), RAW)
async def test_what_is_no_request(
    quiet: httpx.AsyncClient, body: bytes, headers: dict[str, str], status: int, code: str, param: str | None
) -> None:
    check(await quiet.post(JOBS, content=body, headers=headers), status, code, param)


async def test_routes_and_methods(quiet: httpx.AsyncClient) -> None:
    check(await quiet.get("/v1/nothing"), 404, "not_found", None)
    check(await quiet.put(JOBS, json={}), 405, "method_not_allowed", None)
    assert (await quiet.put(JOBS, json={})).headers["allow"] == "GET, HEAD, POST"
    assert (await quiet.options(f"{JOBS}/x")).headers["allow"] == "GET, HEAD, DELETE"


TEXT = {"content-type": "text/plain"}


@pytest.mark.parametrize("content", [b"text", b'{"a": 1, "a": 2}', b"\xff"])
@pytest.mark.parametrize("headers", [TEXT, JSON, {}])
async def test_no_such_route_goes_before_no_such_method_and_that_before_a_wrong_body(
    quiet: httpx.AsyncClient, content: bytes, headers: dict[str, str]
) -> None:
    check(await quiet.post("/v1/nothing", content=content, headers=headers), 404, "not_found", None)
    check(await quiet.post("/v1/queue", content=content, headers=headers), 405, "method_not_allowed", None)
    check(await quiet.put(JOBS, content=content, headers=headers), 405, "method_not_allowed", None)
    answer = await quiet.post(JOBS, content=content, headers=headers)
    assert answer.status_code == (400 if headers is JSON else 415)


async def test_all_faults_are_in_one_answer(quiet: httpx.AsyncClient) -> None:
    wrong = {
        "width": 63, "height": 65, "quality": "hd", "style": "vivid", "nag_scale": 0.5, "guidance_scale": 99,
        "output_compression": 5, "loras": [{"id": "x"}, {"id": "y"}], "prompt": "x" * 3000, "stream": True,
        "response_format": "url", "steps": 1, "num_inference_steps": 1,
    }  # fmt: skip
    answer = await quiet.post(IMAGES, json={"prompt": "a", **wrong})
    check(answer, 400, "unsupported_parameter", "quality")
    message = answer.json()["error"]["message"]
    named = (*(wrong.keys() - {"loras", "num_inference_steps", "stream"}), "loras.0.id", "loras.1.id")
    assert [name for name in named if f"{name}: " not in message] == []
    answer = await quiet.post(IMAGES, json={"n": 0, "seed": -1, "promt": 1, "size": "large"})
    check(answer, 422, "invalid_request", "prompt")
    assert [name for name in ("prompt", "n", "seed", "promt", "size") if f"{name}: " not in answer.text] == []


FAULTS: list[tuple[str, dict[str, Any], tuple[str, ...]]] = [
    (JOBS, {"width": 63, "n": 0}, ("n", "width")),
    (JOBS, {"prompt": 5, "height": 63}, ("prompt", "height")),
    (JOBS, {"nag": {"scale": "7", "tau": 0.5, "end": 2}}, ("nag.scale", "nag.tau", "nag.end")),
    (JOBS, {"loras": [{"scale": 1}], "deadline_s": 1e9}, ("loras.0.id", "deadline_s")),
    (JOBS, {"webhook": {"events": ["ended"]}, "guidance_scale": 0.5}, ("webhook.url", "webhook.events.0",
                                                                       "guidance_scale")),
    (JOBS, {"webhook": {"url": "ftp://a.example"}, "seed": "7", "mask": "x"}, ("seed", "mask", "webhook")),
    (JOBS, {"promt": "a", "image": "cat.png", "mask": "dog.png"}, ("promt", "image", "mask")),
    (JOBS, {"image": "cat.png", "width": 63, "n": "1"}, ("n", "image", "width")),
    (IMAGES, {"n": "1", "quality": "hd", "size": "63x64"}, ("n", "quality", "size")),
    ("/v1/videos", {"seconds": [4], "size": "63x64", "n": 2}, ("seconds", "n", "size")),
    ("/v1/images/edits", {"seed": -1, "quality": "hd", "mask": "x"}, ("seed", "image", "mask", "quality")),
    ("/v1/images/edits", {"image": ["x"], "mask": "y", "n": 0, "nag_end": 2}, ("n", "image.0", "mask", "nag_end")),
    ("/sdapi/v1/txt2img", {"steps": "x", "script_name": "a", "alwayson_scripts": {"ControlNet": {"args": [{}]}},
                           "prompt": "<hypernet:a:1> <lora:a:b>"},
     ("steps", "script_name", "alwayson_scripts.ControlNet", "prompt: <hypernet:a:1>", "prompt: <lora:a:b>")),
    ("/sdapi/v1/img2img", {"width": 0, "infotext": "a", "init_images": [PNG]}, ("width", "infotext")),
]  # fmt: skip


@pytest.mark.parametrize(("path", "fields", "named"), FAULTS)
async def test_faults_of_shape_and_of_values_are_in_one_answer(
    quiet: httpx.AsyncClient, path: str, fields: dict[str, Any], named: tuple[str, ...]
) -> None:
    answer = await quiet.post(path, json={"prompt": "a"} | fields)
    error = answer.json()["error"]
    assert (answer.status_code, error["code"], error["param"]) == (422, "invalid_request", named[0])
    faults = error["message"].split("; ")
    found = [fault for fault in faults if fault.startswith(tuple(f"{name}: " for name in named))]
    assert len(found) == len(named), error


async def test_faults_of_a_form_are_in_one_answer_as_well(quiet: httpx.AsyncClient) -> None:
    file = ("a.png", b"no image", "image/png")
    fields = {"prompt": "a", "n": "many", "nag[scale]": "0.5", "quality": "hd", "loras": "[1]"}
    answer = await quiet.post("/v1/images/edits", data=fields, files={"image": file})
    error = answer.json()["error"]
    assert (answer.status_code, error["param"]) == (422, "n")
    for name in ("n", "loras.0", "nag.scale", "quality", "image"):
        assert f"{name}: " in error["message"], error


async def test_what_depends_on_a_value_of_the_wrong_shape_is_not_judged(quiet: httpx.AsyncClient) -> None:
    answer = await quiet.post(JOBS, json={"prompt": "a", "model": 5, "width": 63})
    assert (answer.status_code, "width" in answer.json()["error"]["message"]) == (422, False)


@pytest.mark.parametrize(
    ("path", "fields"), [(IMAGES, {"size": "large"}), ("/v1/videos", {"seconds": "long"}), ("/v1/videos", {"size": ""})]
)
async def test_no_message_has_a_regular_expression(quiet: httpx.AsyncClient, path: str, fields: dict[str, str]) -> None:
    message = (await quiet.post(path, json={"prompt": 1, **fields})).json()["error"]["message"]
    assert not set("^$\\*|") & set(message)
    assert "[0-9]" not in message


@pytest.mark.parametrize(
    ("sent", "read"),
    [
        ({"steps": 3}, {"num_inference_steps": 3}),
        ({"num_inference_steps": 3.0, "width": 64.0, "seed": 7.0}, {"num_inference_steps": 3, "width": 64, "seed": 7}),
        ({"output_format": "jpg"}, {"output_format": "jpeg"}),
        ({"negative_prompt": ""}, {"negative_prompt": None, "nag": None}),
    ],
)
async def test_other_ways_to_write_a_value(api: httpx.AsyncClient, sent: dict[str, Any], read: dict[str, Any]) -> None:
    request = (await api.post(JOBS, json={"prompt": "a", **sent})).json()["request"]
    assert {name: request[name] for name in read} == read


@pytest.mark.parametrize("value", [1.5, 1e300, "1.0", True])
async def test_what_is_no_integer(quiet: httpx.AsyncClient, value: Any) -> None:
    check(await quiet.post(JOBS, json={"prompt": "a", "num_inference_steps": value}), 422, "invalid_request",
          "num_inference_steps")  # fmt: skip


async def chunks(total_bytes: int) -> AsyncIterator[bytes]:
    for _ in range(total_bytes // 65536):
        yield b"x" * 65536


@pytest.mark.parametrize("chunked", [False, True])
async def test_a_body_too_large(quiet: httpx.AsyncClient, chunked: bool) -> None:
    content: Any = chunks(50_000_000) if chunked else b"x" * 50_000_000
    check(await quiet.post(JOBS, content=content, headers=JSON), 413, "body_too_large", None)


@pytest.mark.parametrize("header", ["content-length: 50000000", "transfer-encoding: chunked"])
async def test_a_body_too_large_without_end(
    quiet: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch, header: str
) -> None:
    monkeypatch.setattr(early_response, "LINGER_S", 0.3)
    reader, writer = await asyncio.open_connection(quiet.base_url.host, quiet.base_url.port)
    head = f"POST {CANCEL} HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\n{header}\r\n\r\n"
    writer.write(head.encode())
    writer.write((b"10000\r\n" + b"x" * 65536 + b"\r\n") * 20)  # above the limit, and then silence
    answer = await asyncio.wait_for(reader.read(), 5)  # to the end: the server closes
    assert answer.startswith(b"HTTP/1.1 413 ")
    assert b"connection: close" in answer
    writer.close()


async def test_a_body_too_large_that_waits_to_be_asked_for_is_not_asked_for(quiet: httpx.AsyncClient) -> None:
    reader, writer = await asyncio.open_connection(quiet.base_url.host, quiet.base_url.port)
    writer.write(
        f"POST {CANCEL} HTTP/1.1\r\nhost: x\r\nexpect: 100-continue\r\ncontent-length: 50000000\r\n\r\n".encode()
    )
    assert (await asyncio.wait_for(reader.read(), 5)).startswith(b"HTTP/1.1 413 ")
    writer.close()


async def test_an_unexpected_exception(
    quiet: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async def broken(*_: object) -> None:
        raise ZeroDivisionError

    with monkeypatch.context() as patched:
        patched.setattr(Service, "find", broken)
        answer = await quiet.get("/v1/jobs/x", headers={"x-request-id": "mine-1"})
    check(answer, 500, "internal_error", None)
    assert answer.headers["x-request-id"] == "mine-1"
    assert "ZeroDivisionError" in caplog.text
    assert "mine-1" in caplog.text
    assert "ZeroDivision" not in answer.text


async def test_a_request_id_that_is_unsafe_is_replaced(api: httpx.AsyncClient) -> None:
    answer = await api.get("/healthz", headers={"x-request-id": "a b"})
    assert answer.headers["x-request-id"].startswith("req_")


async def test_a_queue_that_cannot_be_reached(settings: Settings) -> None:
    async with serving(settings.model_copy(update={"redis_url": "redis://127.0.0.1:1/0"})) as api:
        check(await api.post(JOBS, json={"prompt": "a"}), 503, "queue_unreachable", None)
        check(await api.get("/readyz"), 503, "queue_unreachable", None)
        assert (await api.get("/healthz")).status_code == 200
        assert "nag_redis_up 0.0" in (await api.get("/metrics")).text


async def test_a_queue_that_refuses_says_why(settings: Settings, tmp_path: Path) -> None:
    with valkey(tmp_path / "valkey") as server:
        async with serving(settings.model_copy(update={"redis_url": server.url})) as api:
            server.admin.config_set("maxmemory", "100000")
            answer = await api.post(JOBS, json={"prompt": "a"})
            check(answer, 503, "queue_refused", None)
            assert "maxmemory" in answer.json()["error"]["message"]
            assert answer.headers["retry-after"] == "10"
            assert (await api.get("/v1/queue")).status_code == 200


async def test_a_worker_is_asked_for_nothing_that_was_refused(api: httpx.AsyncClient, worker: FakeWorker) -> None:
    assert (await api.post(IMAGES, json={"prompt": "a", "size": "63x64"})).status_code == 400
    assert (await api.post(IMAGES, json={"prompt": "a"})).status_code == 200
    assert len(worker.seen) == 1
