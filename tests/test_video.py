"""Videos through the whole service: HTTP, a real queue, a real worker, and a real browser at the end."""

from __future__ import annotations

import asyncio
import base64
import io
import json
import os
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from PIL import Image

from app.artifacts.signed_urls import PATH, Links
from app.catalog import Catalog
from app.cli import main
from app.queue.queue import Queue
from app.settings import Settings
from app.worker.engine import pipelines
from app.worker.engine.shared_model import SharedModel
from app.worker.outputs.video import encode_mp4
from tests import browser
from tests.api.support import serving
from tests.catalogs import MODEL
from tests.limits import HANG_S
from tests.videos import boxes, psnr_db, read
from tests.worker.generate import CPU, generate

ROOT = Path(__file__).parents[1]
#: Random weights make videos that are close to noise, of which H.264 keeps least.
ALIKE_DB = 27.0
OTHERS_DB = 25.0


@pytest.fixture
async def api(settings: Settings, video_catalog: Path) -> AsyncIterator[httpx.AsyncClient]:
    async with serving(settings.model_copy(update={"catalog": video_catalog})) as client:
        yield client


@pytest.fixture
def worker(settings: Settings, video_catalog: Path) -> Iterator[Any]:
    """`worker()` starts a worker process."""
    begun: list[subprocess.Popen[bytes]] = []
    environment = os.environ | {
        "NAG_DATA_DIR": str(settings.data_dir),
        "NAG_REDIS_URL": str(settings.redis_url),
        "NAG_CATALOG": str(video_catalog),
        "NAG_DEVICE": "cpu",
        "NAG_BATCH_BUDGET": "fixed",
    }

    def start() -> None:
        begun.append(subprocess.Popen([sys.executable, "-m", "app.cli", "worker"], env=environment, cwd=ROOT))

    yield start
    for each in begun:
        each.terminate()
        each.wait(HANG_S)


@pytest.mark.slow
async def test_two_guidances_in_one_batch_each_the_video_it_is_alone(
    api: httpx.AsyncClient, worker: Any, queue: Queue, video_catalog: Path
) -> None:
    bodies: list[dict[str, Any]] = [
        {"prompt": "a shape", "negative_prompt": "a red shape", "seed": 1, "num_frames": 17},
        {
            "prompt": "a circle",
            "seed": 2,
            "num_frames": 17,
            "fps": 8,
            "video_codec": "av1",
            "nag": {"scale": 3.0, "alpha": 0.5, "end": 0.5, "scale_decay": 0.5, "negative_prompt": "green"},
        },
    ]
    accepted = [(await api.post("/v1/jobs", json=body)).json() for body in bodies]
    assert [job["status"] for job in accepted] == ["queued", "queued"]
    worker()
    entry = Catalog.load(Settings(catalog=video_catalog)).models[MODEL]
    model = SharedModel(entry, await asyncio.to_thread(pipelines.load, entry, CPU))
    alone = []
    for each in accepted:
        stored = await queue.wait(each["id"], HANG_S)
        assert stored is not None
        # In a thread: the API runs in this event loop, and would close the connections that it left idle meanwhile.
        (made,) = await asyncio.to_thread(generate, model, stored)
        alone.append((made.pixels * 255).round().astype(np.uint8))
    assert psnr_db(*alone) < OTHERS_DB

    for each, body, frames in zip(accepted, bodies, alone, strict=True):
        job = (await api.get(f"/v1/jobs/{each['id']}")).json()
        assert (job["status"], job["batch_size"]) == ("completed", 2)
        assert job["nag"]["applied"]
        assert job["nag"]["scale"] == body.get("nag", {}).get("scale", 5.0)
        fps = body.get("fps", 16)
        assert (job["request"]["num_frames"], job["request"]["fps"]) == (17, fps)
        (output,) = job["outputs"]
        assert (output["media_type"], output["seed"]) == ("video/mp4", body["seed"])

        answer = await api.get(output["url"])
        assert (answer.status_code, answer.headers["content-type"]) == (200, "video/mp4")
        assert len(answer.content) == output["size_bytes"]
        names = boxes(answer.content)
        assert names.index("moov") < names.index("mdat")
        part = await api.get(output["url"], headers={"range": "bytes=100-199"})
        assert (part.status_code, part.content) == (206, answer.content[100:200])
        assert part.headers["content-type"] == "video/mp4"

        video = read(answer.content)
        assert (video.codec, video.pix_fmt, video.fps) == (body.get("video_codec", "h264"), "yuv420p", fps)
        assert video.frames.shape == (17, 48, 64, 3)
        said = json.loads(video.comment or "")
        assert (said["prompt"], said["seed"], said["num_frames"]) == (body["prompt"], body["seed"], 17)
        small = Image.open(io.BytesIO((await api.get(output["thumbnail_url"])).content))
        assert (small.format, small.size) == ("JPEG", (64, 48))
        assert psnr_db(np.asarray(small), video.frames[8]) > ALIKE_DB
        assert psnr_db(video.frames, frames) > ALIKE_DB


async def test_openai_s_picture_route_says_where_videos_are_made(api: httpx.AsyncClient, queue: Queue) -> None:
    answer = await api.post("/v1/images/generations", json={"prompt": "a shape", "model": MODEL})
    error = answer.json()["error"]
    assert (answer.status_code, error["code"], error["param"]) == (400, "not_an_image_model", "model")
    assert "POST /v1/videos" in error["message"]
    assert await queue.depth(MODEL) == 0


@pytest.fixture
def url(service: str) -> str:
    """A whole service whose default model makes videos."""
    return service


def test_generate_saves_a_video_and_says_so(
    url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    asked = ["generate", "a shape", "--negative", "a red shape", "--seed", "7", "--url", url]
    assert main([*asked, "--frames", "13", "--fps", "8"]) == 0
    said = capsys.readouterr().out
    assert said.startswith(f"out.mp4  64x48, 13 frames at 8 per second (1.625 s), model {MODEL}\n")
    assert "applied: scale 5" in said
    video = read(Path("out.mp4").read_bytes())
    assert (len(video.frames), video.fps) == (13, 8)
    assert main([*asked, "--frames", "13", "--fps", "8", "--out", "again.mp4"]) == 0
    assert Path("again.mp4").read_bytes() == Path("out.mp4").read_bytes()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--out", "a.png"], f"output_format: model {MODEL} makes mp4, not png"),
        (["--frames", "16"], "num_frames: must be 5 to 81, a multiple of 4 plus 1"),
        (["--fps", "0"], "fps: must be 1 to 60"),
        (["--model", "shapes-flux", "--frames", "5"], "num_frames: model shapes-flux generates images, not videos"),
        (["--model", "shapes-flux", "--out", "a.mp4"], "output_format: model shapes-flux makes png or jpeg or webp"),
    ],
)
def test_generate_repeats_the_servers_refusal(
    url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[str], said: str,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    assert main(["generate", "a shape", "--url", url, *arguments]) == 1
    assert said in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


@pytest.fixture
def page(tmp_path: Path) -> Iterator[browser.Page]:
    with browser.playing(tmp_path / "profile") as page:
        yield page


def test_a_browser_plays_what_the_service_made_until_its_link_expires(
    url: str, service_folder: Path, page: browser.Page
) -> None:
    with httpx.Client(base_url=url, trust_env=False, timeout=HANG_S) as http:
        job = http.post("/v1/jobs", json={"prompt": "a shape", "seed": 3}, headers={"prefer": "wait=60"}).json()
        data = http.get(job["outputs"][0]["url"]).content
    page.open(url)  # a page of the same origin, so that the video's pixels may be read
    seen = page.play(job["outputs"][0]["url"])
    assert (seen["width"], seen["height"]) == (64, 48)
    assert seen["duration_s"] == pytest.approx(9 / 16, abs=1e-3)
    assert seen["played_s"] == pytest.approx(9 / 16, abs=1e-3)
    assert seen["corrupted"] == 0
    last = np.frombuffer(seen["pixels"], np.uint8).reshape(48, 64, 4)[..., :3]
    assert psnr_db(last, read(data).frames[-1]) > 30

    secret = (service_folder / "data" / "url-secret").read_bytes()
    name = job["outputs"][0]["url"].partition("?")[0].removeprefix(PATH)
    brief = Links([secret], lifetime_s=1).to(name).url  # as the service gives it where so much is set
    while page.status(brief) == 200:
        time.sleep(0.2)
    assert page.status(brief) == 410
    assert page.status(brief[:-1]) == 403
    assert "error" in page.try_to_play(brief)


def test_a_browser_shows_the_colours_that_were_meant(page: browser.Page) -> None:
    colors = [[220, 30, 30], [30, 200, 40], [40, 50, 210], [240, 220, 40]]
    frames = np.repeat(np.array(colors, np.uint8), 16, axis=0)[None, None].repeat(9, 0).repeat(32, 1)
    with encode_mp4(frames, 16) as file:
        data = base64.b64encode(file.read()).decode()
    seen = page.play(f"data:video/mp4;base64,{data}")
    last = np.frombuffer(seen["pixels"], np.uint8).reshape(32, 64, 4)[16, 8::16, :3]
    # A browser without a GPU takes 1 / 18 off the blue; colours tagged wrongly are off by 15 and more.
    assert np.abs(last.astype(int) - colors).max() <= 10
