"""OpenAI's videos over a real socket: as JSON, as a form, and what each refusal names."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from app.api.openai.videos import POLL_MAX_MS, POLL_MIN_MS, POLL_MS, poll_after_ms, video_view
from app.jobs import Generation, Guidance, Job, JobStatus
from app.queue.queue import Queue
from app.settings import Settings
from tests.api.support import FakeWorker, serving, working
from tests.catalogs import MODEL

ROUTE = "/v1/videos"


@pytest.fixture
async def videos(settings: Settings, video_entry: Path) -> AsyncIterator[httpx.AsyncClient]:
    async with serving(settings.model_copy(update={"catalog": video_entry})) as client:
        yield client


@pytest.fixture
async def maker(queue: Queue, settings: Settings) -> AsyncIterator[FakeWorker]:
    async with working(queue, settings, MODEL) as worker:
        yield worker


async def finished(api: httpx.AsyncClient, queue: Queue, video_id: str) -> dict[str, Any]:
    await queue.wait(video_id, 20)
    return dict((await api.get(f"{ROUTE}/{video_id}")).json())


async def test_from_accepted_to_fetched(videos: httpx.AsyncClient, queue: Queue, settings: Settings) -> None:
    asked = {"prompt": "a shape", "seconds": "1", "size": "64x32", "seed": 7, "user": "u1"}
    answer = await videos.post(ROUTE, json=asked)
    assert (answer.status_code, answer.headers["openai-poll-after-ms"]) == (200, str(POLL_MS))
    video = answer.json()
    assert (video["object"], video["status"], video["progress"], video["model"]) == ("video", "queued", 0, MODEL)
    assert (video["prompt"], video["size"], video["seed"]) == ("a shape", "64x32", 7)
    assert (video["num_frames"], video["fps"], video["seconds"]) == (17, 16, "1.0625")  # the grid's nearest to 16
    assert (video["completed_at"], video["expires_at"], video["error"]) == (None, None, None)
    assert (await videos.get(f"{ROUTE}/{video['id']}/content")).json()["error"]["code"] == "not_ready"

    async with working(queue, settings, MODEL):
        done = await finished(videos, queue, video["id"])
    assert (done["status"], done["progress"], done["nag"]["applied"]) == ("completed", 100, False)
    assert done["expires_at"] == pytest.approx(done["completed_at"] + settings.retention_s, abs=1)
    assert done["warnings"] == ["user was left out: it is not kept", "a worker's word"]
    content = await videos.get(f"{ROUTE}/{video['id']}/content")
    assert (content.headers["content-type"], content.content) == ("video/mp4", b"an MP4 " * 100)
    part = await videos.get(f"{ROUTE}/{video['id']}/content?variant=video", headers={"range": "bytes=3-5"})
    assert (part.status_code, part.content) == (206, b"MP4")
    small = await videos.get(f"{ROUTE}/{video['id']}/content?variant=thumbnail")
    assert (small.headers["content-type"], small.content) == ("image/jpeg", b"a JPEG")
    [output] = (await videos.get(f"/v1/jobs/{video['id']}")).json()["outputs"]
    assert [(await videos.get(output[each])).content for each in ("url", "thumbnail_url")] == [
        content.content,
        small.content,
    ]
    assert (await videos.get(f"/v1/jobs/{video['id']}")).json()["status"] == "completed"


FIELDS = {
    "prompt": "a shape",
    "seed": 7,
    "seconds": "0.3",
    "size": "32x32",
    "guidance_scale": 1.0,
    "nag": {"scale": 7, "negative_prompt": "red"},
    "nag_end": 0.5,
    "strict": False,
}


async def test_a_form_is_the_request_that_its_json_is(
    videos: httpx.AsyncClient, maker: FakeWorker, queue: Queue
) -> None:
    form = {name: (None, str(value)) for name, value in FIELDS.items() if name != "nag"}
    nested = {"nag[scale]": (None, "7"), "nag[negative_prompt]": (None, "red"), "strict": (None, "false")}
    headers = {"idempotency-key": "one"}
    first = (await videos.post(ROUTE, files=form | nested, headers=headers)).json()
    assert (await videos.post(ROUTE, json=FIELDS, headers=headers)).json()["id"] == first["id"]
    assert (await finished(videos, queue, first["id"]))["status"] == "completed"
    [asked] = maker.seen
    assert asked.nag == Guidance(7.0, 2.5, 0.25, 0.5, "red")
    assert (asked.seed, asked.width, asked.num_frames) == (7, 32, 5)


REFUSED: list[tuple[dict[str, str], int, str, str | None]] = [
    ({"seconds": "0.1"}, 400, "invalid_parameter", "seconds"),
    ({"seconds": "12"}, 400, "invalid_parameter", "seconds"),
    ({"seconds": "long"}, 422, "invalid_request", "seconds"),
    ({"seconds": "1", "num_frames": "17"}, 400, "invalid_parameter", "seconds"),
    ({"seconds": "1", "fps": "0"}, 400, "invalid_parameter", "fps"),
    ({"size": "720x1280"}, 400, "invalid_parameter", "size"),
    ({"n": "2"}, 400, "invalid_parameter", "n"),
    ({"model": "sora-99"}, 400, "model_not_found", "model"),
    ({"model": "shapes-flux"}, 400, "not_a_video_model", "model"),
    ({"input_reference": "file.png"}, 400, "invalid_parameter", "input_reference"),
    ({"seed": "many"}, 422, "invalid_request", "seed"),
    ({"guidance_scale": "nan"}, 400, "invalid_parameter", "guidance_scale"),
    ({"nag[scale]": "0.5"}, 400, "invalid_parameter", "nag.scale"),
    ({"nag[sacle]": "5"}, 422, "invalid_request", "nag.sacle"),
    ({"nag": "5", "nag[scale]": "5"}, 422, "invalid_request", "nag[scale]"),
    ({"[": "5"}, 422, "invalid_request", "["),
    ({"output_format": "png"}, 400, "unsupported_parameter", "output_format"),
]


async def test_what_cannot_be_honoured_is_named(videos: httpx.AsyncClient, queue: Queue) -> None:
    for fields, status, code, param in REFUSED:
        answer = await videos.post(
            ROUTE, files={name: (None, text) for name, text in {"prompt": "a", **fields}.items()}
        )
        error = answer.json()["error"]
        assert (answer.status_code, error["code"], error["param"]) == (status, code, param), error
    assert await queue.depth(MODEL) == 0


async def test_a_length_that_is_not_made_is_answered_with_those_that_are(videos: httpx.AsyncClient) -> None:
    error = (await videos.post(ROUTE, json={"prompt": "a", "seconds": "12"})).json()["error"]
    assert "must be 0.3125 to 5.0625" in error["message"]


async def test_a_field_sent_twice_is_refused(videos: httpx.AsyncClient) -> None:
    twice = [("prompt", (None, "a")), ("seed", (None, "1")), ("seed", (None, "2"))]
    answer = await videos.post(ROUTE, files=twice)
    assert (answer.status_code, answer.json()["error"]["param"]) == (422, "seed")


async def test_a_file_is_refused_by_its_name_or_left_out(videos: httpx.AsyncClient) -> None:
    files: dict[str, Any] = {"prompt": (None, "a"), "input_reference": ("cat.png", b"\x89PNG", "image/png")}
    error = (await videos.post(ROUTE, files=files)).json()["error"]
    assert (error["code"], error["param"]) == ("unsupported_parameter", "input_reference")
    video = (await videos.post(ROUTE, files=files | {"strict": (None, "false")})).json()
    assert video["warnings"] == [f"input_reference was left out: model {MODEL} takes none; it starts from text alone"]


@pytest.mark.parametrize(
    ("content", "content_type"),
    [
        (b"--x\r\nno header", "multipart/form-data; boundary=x"),
        (b"prompt=a", "multipart/form-data"),
        (
            b"\r\n".join([b'--x\r\ncontent-disposition: form-data; name="a"\r\n\r\n1'] * 300),
            "multipart/form-data; boundary=x",
        ),
    ],
)
async def test_a_form_that_is_none(videos: httpx.AsyncClient, content: bytes, content_type: str) -> None:
    answer = await videos.post(ROUTE, content=content, headers={"content-type": content_type})
    assert (answer.status_code, answer.json()["error"]["code"]) == (400, "malformed_body"), answer.text


async def test_a_form_goes_to_no_other_route(videos: httpx.AsyncClient) -> None:
    for route in ("/v1/jobs", "/v1/images/generations"):
        assert (await videos.post(route, files={"prompt": (None, "a")})).status_code == 415


async def test_a_list_page_by_page_in_either_order(videos: httpx.AsyncClient) -> None:
    made = [(await videos.post(ROUTE, json={"prompt": str(number)})).json()["id"] for number in range(5)]
    await videos.post("/v1/jobs", json={"prompt": "a picture", "model": "shapes-flux"})
    for order, expected in (("asc", made), ("desc", made[::-1])):
        first = (await videos.get(ROUTE, params={"limit": 3, "order": order})).json()
        assert [each["id"] for each in first["data"]] == expected[:3]
        assert (first["object"], first["has_more"], first["last_id"]) == ("list", True, expected[2])
        rest = (await videos.get(ROUTE, params={"order": order, "after": first["last_id"]})).json()
        assert ([each["id"] for each in rest["data"]], rest["has_more"]) == (expected[3:], False)
    answer = await videos.get(ROUTE, params={"after": "job_unknown"})
    assert (answer.status_code, answer.json()["error"]["param"]) == (400, "after")


async def test_deleted_it_is_gone(videos: httpx.AsyncClient, queue: Queue, settings: Settings) -> None:
    video = (await videos.post(ROUTE, json={"prompt": "a"})).json()
    async with working(queue, settings, MODEL):
        await finished(videos, queue, video["id"])
    answer = await videos.delete(f"{ROUTE}/{video['id']}")
    assert answer.json() == {"id": video["id"], "object": "video.deleted", "deleted": True}
    for gone in (await videos.delete(f"{ROUTE}/{video['id']}"), await videos.get(f"{ROUTE}/{video['id']}/content")):
        assert (gone.status_code, gone.json()["error"]["code"]) == (404, "not_found")
    picture = (await videos.post("/v1/jobs", json={"prompt": "a", "model": "shapes-flux"})).json()
    assert (await videos.delete(f"{ROUTE}/{picture['id']}")).status_code == 404
    assert (await videos.get(f"/v1/jobs/{picture['id']}")).json()["status"] == "queued"


async def test_cancelled_is_a_failure_with_that_code(videos: httpx.AsyncClient) -> None:
    video = (await videos.post(ROUTE, json={"prompt": "a", "seconds": 1})).json()
    await videos.post(f"/v1/jobs/{video['id']}/cancel")
    answer = await videos.get(f"{ROUTE}/{video['id']}")
    assert (answer.json()["status"], answer.json()["error"]["code"]) == ("failed", "cancelled")
    assert "openai-poll-after-ms" not in answer.headers


async def test_a_failed_one_says_why(videos: httpx.AsyncClient, maker: FakeWorker, queue: Queue) -> None:
    video = (await videos.post(ROUTE, json={"prompt": "fail"})).json()
    done = await finished(videos, queue, video["id"])
    assert (done["status"], done["error"]["code"]) == ("failed", "out_of_memory")
    content = await videos.get(f"{ROUTE}/{video['id']}/content")
    assert (content.status_code, content.json()["error"]["code"]) == (500, "out_of_memory")


async def test_pictures_are_no_video(settings: Settings) -> None:
    async with serving(settings.model_copy(update={"models": ("shapes-flux",)})) as api:
        job = (await api.post("/v1/jobs", json={"prompt": "a shape"})).json()
        for path in (job["id"], f"{job['id']}/content", "job_unknown", "job_unknown/content"):
            answer = await api.get(f"{ROUTE}/{path}")
            assert (answer.status_code, answer.json()["error"]["code"]) == (404, "not_found")
        error = (await api.post(ROUTE, json={"prompt": "a shape"})).json()["error"]
    assert (error["code"], error["param"]) == ("model_not_found", "model")  # the catalog has none for videos


@pytest.mark.parametrize(
    ("step", "since_s", "after_ms"),
    [(0, 9.0, POLL_MS), (2, 0.01, POLL_MIN_MS), (2, 4.0, 2000), (1, 100.0, POLL_MAX_MS)],
)
def test_when_to_look_again(make_job: Any, step: int, since_s: float, after_ms: int) -> None:
    job: Job = make_job("a", num_inference_steps=4)
    assert isinstance(job.request, Generation)
    begun = Job(job.id, job.request, JobStatus.IN_PROGRESS, started_at=100.0, step=step)
    assert poll_after_ms(begun, 100.0 + since_s) == after_ms


def test_progress_counts_the_steps_that_are_run(make_job: Any) -> None:
    job: Job = make_job("a", num_inference_steps=8, num_frames=9, fps=16, output_format="mp4", strength=0.5)
    begun = Job(job.id, job.request, JobStatus.IN_PROGRESS, started_at=100.0, step=2)
    assert (video_view(begun, 60.0).progress, poll_after_ms(begun, 104.0)) == (50, 2000)
