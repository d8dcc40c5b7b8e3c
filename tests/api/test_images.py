from __future__ import annotations

import asyncio
import base64
import io
import json
import re
from pathlib import Path
from typing import Any

import httpx
import pytest
from PIL import Image

from app.jobs import Guidance
from app.queue.queue import Queue
from app.settings import Settings
from tests.api.support import FakeWorker, first_waiting, picture, serving
from tests.claiming import claim

ROUTE = "/v1/images/generations"


async def test_pictures_in_openais_shape_with_our_echo(api: httpx.AsyncClient, worker: FakeWorker) -> None:
    answer = await api.post(ROUTE, json={"prompt": "a shape", "n": 2, "seed": 7, "size": "64x64", "user": "u1"})
    assert answer.status_code == 200
    body = answer.json()
    assert isinstance(body["created"], int)
    pictures = [Image.open(io.BytesIO(base64.b64decode(each["b64_json"]))) for each in body["data"]]
    assert [each.getpixel((0, 0)) for each in pictures] == [(7, 0, 0), (8, 0, 0)]
    assert [each["seed"] for each in body["data"]] == [7, 8]
    assert (body["output_format"], body["size"], body["background"]) == ("png", "64x64", "opaque")
    assert body["nag"] == {
        "applied": False, "reason": "not_requested",
        "scale": None, "tau": None, "alpha": None, "end": None, "scale_decay": None, "start": None,
        "method": None,
    }  # fmt: skip
    assert (body["seed"], body["attempts"], body["worker"], body["batch_size"]) == (7, 1, "fake-1", 1)
    assert body["timings"]["total_ms"] == 40.0
    assert body["warnings"] == ["user was left out: it is not kept", "a worker's word"]
    assert (body["usage"]["total_tokens"], body["usage"]["work"]) == (0, 2 * 64 * 64 * 4)
    assert float(answer.headers["x-queue-time"]) == 1.5
    assert (await api.get(f"/v1/jobs/{body['job']}")).json()["status"] == "completed"


async def test_a_prompt_that_is_too_long_is_the_callers_fault(api: httpx.AsyncClient, worker: FakeWorker) -> None:
    """A worker alone knows the model's tokenizers."""
    for answer in (
        await api.post(ROUTE, json={"prompt": "too long"}),
        await api.post("/v1/jobs", json={"prompt": "too long"}, headers={"prefer": "wait=30"}),
    ):
        job = answer.json()
        if answer.status_code == 200:
            assert job["status"] == "failed"
            assert job["error"]["code"] == "prompt_too_long"
            answer = await api.get(f"/v1/jobs/{job['id']}/result")
        error = answer.json()["error"]
        assert (answer.status_code, error["param"], error["code"]) == (400, "prompt", "prompt_too_long")
        assert error["type"] == "invalid_request_error"
    assert (await api.post(ROUTE, json={"prompt": "too long", "strict": False})).status_code == 200
    assert [asked.strict for asked in worker.seen] == [True, True, False]


BLANK = (
    "model", "negative_prompt", "nag_negative_prompt", "size", "user", "safety_identifier", "quality", "style",
    "background", "moderation", "complexity",
)  # fmt: skip


async def test_blank_optional_texts_ask_for_nothing(api: httpx.AsyncClient, worker: FakeWorker) -> None:
    """As clients send them that fill in every field."""
    body = {"prompt": "a shape", **dict.fromkeys(BLANK, ""), "nag": {"negative_prompt": ""}}
    answer = await api.post(ROUTE, json=body)
    assert answer.status_code == 200, answer.text
    assert answer.json()["warnings"] == ["a worker's word"]
    assert (worker.seen[0].nag, worker.seen[0].negative_prompt) == (None, None)


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({"negative_prompt": "a red shape"}, Guidance(5.0, 2.5, 0.25, 1.0, "a red shape")),
        ({"nag_negative_prompt": "a red shape", "nag_scale": 7}, Guidance(7.0, 2.5, 0.25, 1.0, "a red shape")),
        ({"nag": {"end": 0.5}, "nag_alpha": 0.5, "nag_tau": 3}, Guidance(5.0, 3.0, 0.5, 0.5, "")),
        ({"nag_end": 0, "negative_prompt": "x"}, Guidance(5.0, 2.5, 0.25, 0.0, "x")),
        ({"nag_scale_decay": 1, "negative_prompt": "x"}, Guidance(5.0, 2.5, 0.25, 1.0, "x", 1.0)),
        ({"nag_anneal": 1, "nag": {"scale_decay": 1}, "negative_prompt": "x"}, Guidance(5.0, 2.5, 0.25, 1.0, "x", 1.0)),
        (
            {"nag_start": 0.5, "nag_method": "vsf", "negative_prompt": "x"},
            Guidance(5.0, 2.5, 0.25, 1.0, "x", 0.0, 0.5, "vsf"),
        ),
        ({"nag": {"method": "orthogonal"}}, Guidance(5.0, 2.5, 0.25, 1.0, "", method="orthogonal")),
    ],
)
async def test_flat_and_nested_guidance(
    api: httpx.AsyncClient, worker: FakeWorker, fields: dict[str, Any], expected: Guidance
) -> None:
    assert (await api.post(ROUTE, json={"prompt": "a shape", **fields})).status_code == 200
    assert worker.seen[0].nag == expected


async def test_a_former_name_is_warned_of_as_it_was_written(api: httpx.AsyncClient, worker: FakeWorker) -> None:
    answer = await api.post(ROUTE, json={"prompt": "a shape", "nag_anneal": 0.5})
    assert answer.json()["warnings"][0] == "nag_anneal is deprecated; send nag_scale_decay"
    answer = await api.post(ROUTE, json={"prompt": "a shape", "nag_anneal": 0.5, "nag_scale_decay": 1})
    error = answer.json()["error"]
    assert (answer.status_code, error["param"]) == (400, "nag_anneal")
    assert error["message"] == "nag_anneal: is a former name of nag_scale_decay; got 0.5 and 1.0, send one"


@pytest.mark.parametrize(
    ("fields", "code", "param"),
    [
        ({"response_format": "url", "stream": True}, "invalid_parameter", "response_format"),
        ({"partial_images": 2}, "unsupported_parameter", "partial_images"),
        ({"partial_images": 2, "previews": 1, "stream": True}, "invalid_parameter", "partial_images"),
        ({"partial_images": 4, "stream": True}, "invalid_request", "partial_images"),
        ({"complexity": "high"}, "unsupported_parameter", "complexity"),
        ({"quality": "hd"}, "unsupported_parameter", "quality"),
        ({"style": "vivid"}, "unsupported_parameter", "style"),
        ({"background": "transparent"}, "unsupported_parameter", "background"),
        ({"moderation": "high"}, "unsupported_parameter", "moderation"),
        ({"size": "1024x1024"}, "invalid_parameter", "size"),
        ({"size": "64x64", "width": 64}, "invalid_parameter", "size"),
        ({"size": "large"}, "invalid_request", "size"),
        ({"nag_scale": 0.5}, "invalid_parameter", "nag_scale"),
        ({"nag_negative_prompt": "x" * 3000}, "invalid_parameter", "nag_negative_prompt"),
        ({"nag_scale": 5, "nag": {"scale": 5}}, "invalid_parameter", "nag_scale"),
    ],
)
async def test_what_cannot_be_honoured_is_refused_by_the_name_it_was_sent_with(
    api: httpx.AsyncClient, worker: FakeWorker, fields: dict[str, Any], code: str, param: str
) -> None:
    answer = await api.post(ROUTE, json={"prompt": "a shape", **fields})
    assert answer.status_code in (400, 422)
    assert (answer.json()["error"]["code"], answer.json()["error"]["param"]) == (code, param)
    assert worker.seen == []


@pytest.mark.parametrize(("quality", "moderation"), [("auto", "auto"), ("standard", "low")])
async def test_neutral_values_are_taken(
    api: httpx.AsyncClient, worker: FakeWorker, quality: str, moderation: str
) -> None:
    neutral = {
        "size": "auto", "quality": quality, "background": "auto", "moderation": moderation,
        "response_format": "b64_json", "stream": False, "partial_images": 0, "n": None, "style": None,
    }  # fmt: skip
    answer = await api.post(ROUTE, json={"prompt": "a shape", **neutral})
    assert answer.status_code == 200
    assert answer.json()["warnings"] == ["a worker's word"]


async def test_a_lenient_request_is_told_what_was_left_out(api: httpx.AsyncClient, worker: FakeWorker) -> None:
    answer = await api.post(ROUTE, json={"prompt": "a shape", "quality": "hd", "strict": False})
    assert answer.status_code == 200
    assert answer.json()["warnings"][0] == "quality was left out: only auto or standard is supported"


async def test_without_a_worker_nothing_is_queued(api: httpx.AsyncClient) -> None:
    answer = await api.post(ROUTE, json={"prompt": "a shape"})
    assert (answer.status_code, answer.json()["error"]["code"]) == (503, "no_worker")
    assert int(answer.headers["retry-after"]) > 0


async def test_a_failed_job_is_its_error(api: httpx.AsyncClient, worker: FakeWorker) -> None:
    answer = await api.post(ROUTE, json={"prompt": "fail"})
    assert (answer.status_code, answer.json()["error"]["code"]) == (500, "out_of_memory")


async def test_a_job_that_takes_too_long_is_named_and_can_be_asked_for_again(settings: Settings, queue: Queue) -> None:
    await queue.registry.announce("busy", ["shapes-flux"], 60)
    async with serving(settings.model_copy(update={"wait_max_s": 0.2})) as api:
        answer = await api.post(ROUTE, json={"prompt": "a shape"})
        assert (answer.status_code, answer.json()["error"]["code"]) == (503, "timeout")
        assert ("x-should-retry" in answer.headers, answer.headers["retry-after"]) == (False, "1")
        [path] = re.findall("/v1/jobs/[a-z0-9_]+", answer.json()["error"]["message"])
        assert (await api.get(path)).json()["status"] == "queued"


async def test_pictures_by_url(api: httpx.AsyncClient, worker: FakeWorker) -> None:
    asked = {"prompt": "a shape", "n": 2, "seed": 7, "response_format": "url", "output_format": "webp"}
    pictures = (await api.post(ROUTE, json=asked)).json()["data"]
    assert ["b64_json" in each for each in pictures] == [False, False]
    for index, each in enumerate(pictures):
        answer = await api.get(each["url"])  # as a whole address
        assert (answer.headers["content-type"], answer.content) == ("image/webp", picture(worker.seen[0], index))


def told(text: str) -> list[tuple[str, dict[str, Any]]]:
    """The events of a stream, pings left out."""
    blocks = [each.split("\n") for each in text.split("\n\n") if each.startswith("event: ")]
    return [(name.removeprefix("event: "), json.loads(data.removeprefix("data: "))) for name, data in blocks]


async def test_a_stream_ends_with_each_picture(api: httpx.AsyncClient, worker: FakeWorker) -> None:
    answer = await api.post(ROUTE, json={"prompt": "a shape", "n": 2, "seed": 7, "stream": True})
    assert (answer.status_code, answer.headers["content-type"]) == (200, "text/event-stream; charset=utf-8")
    events = told(answer.text)
    assert [name for name, _ in events] == ["image_generation.completed"] * 2
    for index, (name, event) in enumerate(events):
        assert (event["type"], event["index"], event["seed"]) == (name, index, 7 + index)
        assert base64.b64decode(event["b64_json"]) == picture(worker.seen[0], index)
        assert (event["size"], event["output_format"], event["quality"]) == ("64x64", "png", "auto")
        assert event["usage"]["work"] == 2 * 64 * 64 * 4
        assert (event["attempts"], event["warnings"]) == (1, ["a worker's word"])


async def test_a_stream_shows_what_each_picture_is_about_to_become(api: httpx.AsyncClient, queue: Queue) -> None:
    await queue.registry.announce("w", ["shapes-flux"], 60)
    asked = {"prompt": "a shape", "n": 2, "stream": True, "partial_images": 2}
    asking = asyncio.create_task(api.post(ROUTE, json=asked))
    waiting = await first_waiting(queue)
    [job] = await claim(queue, "w", "shapes-flux", 1, 1)
    assert job.request.previews == 2
    for step, index in ((1, 0), (1, 1), (2, 0)):
        await queue.publish_preview("w", waiting.id, step, index, b"%d/%d" % (step, index), "image/jpeg")
    await queue.release("w", [waiting.id])
    await claim(queue, "w", "shapes-flux", 1, 1)
    await queue.publish_preview("w", waiting.id, 1, 0, b"again", "image/jpeg")
    await queue.cancel(waiting.id)
    events = told((await asking).text)
    assert [name for name, _ in events] == ["image_generation.partial_image"] * 4 + ["error"]
    shown = [(e["index"], e["partial_image_index"], base64.b64decode(e["b64_json"])) for _, e in events[:-1]]
    assert shown == [(0, 0, b"1/0"), (1, 0, b"1/1"), (0, 1, b"2/0"), (0, 0, b"again")]
    assert {(e["type"], e["output_format"], e["size"]) for _, e in events[:-1]} == {
        ("image_generation.partial_image", "jpeg", "64x64")
    }


async def test_a_failure_in_a_stream_is_its_last_event(api: httpx.AsyncClient, worker: FakeWorker) -> None:
    answer = await api.post(ROUTE, json={"prompt": "fail", "stream": True})
    [(name, body)] = told(answer.text)
    assert (answer.status_code, name, body["error"]["code"]) == (200, "error", "out_of_memory")
    assert set(body["error"]) == {"message", "type", "param", "code"}


async def test_a_stream_that_is_refused_is_an_answer_as_any(api: httpx.AsyncClient, worker: FakeWorker) -> None:
    answer = await api.post(ROUTE, json={"prompt": "a shape", "stream": True, "width": 63})
    assert (answer.status_code, answer.json()["error"]["param"]) == (400, "width")


async def test_a_client_that_leaves_its_stream_leaves_no_work(api: httpx.AsyncClient, queue: Queue) -> None:
    await queue.registry.announce("busy", ["shapes-flux"], 60)
    async with api.stream("POST", ROUTE, json={"prompt": "a shape", "stream": True}) as answer:
        assert answer.status_code == 200
        waiting = await first_waiting(queue)
    job = await queue.wait(waiting.id, 20)
    assert job is not None
    assert job.status == "cancelled"


async def test_with_a_key_its_job_goes_on(api: httpx.AsyncClient, queue: Queue) -> None:
    await queue.registry.announce("busy", ["shapes-flux"], 60)
    headers = {"idempotency-key": "again"}
    async with api.stream("POST", ROUTE, json={"prompt": "a shape", "stream": True}, headers=headers):
        waiting = await first_waiting(queue)
    job = await queue.wait(waiting.id, 1)
    assert job is not None
    assert job.status == "queued"


async def test_a_stream_of_a_server_that_ends_says_where_the_job_goes_on(settings: Settings, queue: Queue) -> None:
    await queue.registry.announce("busy", ["shapes-flux"], 60)
    async with serving(settings, stopping=lambda: True) as api:
        [(name, body)] = told((await api.post(ROUTE, json={"prompt": "a shape", "stream": True})).text)
    assert (name, body["error"]["code"]) == ("error", "timeout")


async def test_without_a_name_the_first_model_of_pictures_is_meant(
    settings: Settings, queue: Queue, worker: FakeWorker, video_entry: Path
) -> None:
    async with serving(settings.model_copy(update={"catalog": video_entry})) as api:  # its default makes videos
        assert (await api.post(ROUTE, json={"prompt": "a shape"})).json()["model"] == "shapes-flux"


async def test_urls_begin_with_the_public_address(settings: Settings, worker: FakeWorker) -> None:
    async with serving(settings.model_copy(update={"public_url": "https://images.example.org"})) as api:
        answer = await api.post(ROUTE, json={"prompt": "a shape", "response_format": "url"})
    assert answer.json()["data"][0]["url"].startswith("https://images.example.org/v1/artifacts/job_")
