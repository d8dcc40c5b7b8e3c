"""OpenAI's own Python SDK, unmodified, against the whole service."""

from __future__ import annotations

import base64
import io
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import httpx2
import numpy as np
import openai
import pytest
from openai import OpenAI
from openai.types import ImagesResponse
from PIL import Image

from tests.catalogs import MODEL
from tests.metrics_text import of_text
from tests.videos import read

pytestmark = pytest.mark.filterwarnings("ignore:The Sora API is scheduled:DeprecationWarning")

OURS = {"negative_prompt": "a red shape", "seed": 7}


@pytest.fixture(scope="module")
def client(service: str) -> Iterator[OpenAI]:
    with OpenAI(base_url=f"{service}/v1", api_key="none is asked for") as client:
        yield client


def opened(data: bytes) -> Image.Image:
    return Image.open(io.BytesIO(data)).convert("RGB")


def test_models(client: OpenAI) -> None:
    assert {each.id for each in client.models.list()} > {"shapes-flux", MODEL}
    assert client.models.retrieve(MODEL).owned_by == "nag-server"


def test_pictures_in_the_answer_and_by_url(client: OpenAI) -> None:
    answer = client.images.generate(prompt="a shape", n=2, size="64x64", extra_body=OURS)
    assert answer.data is not None
    assert (len(answer.data), answer.size, answer.output_format, answer.background) == (2, "64x64", "png", "opaque")
    assert answer.usage is not None
    assert answer.usage.total_tokens == 0
    assert answer.nag == {  # type: ignore[attr-defined]
        "applied": True,
        "reason": None,
        "scale": 5.0,
        "tau": 2.5,
        "alpha": 0.25,
        "end": 1.0,
        "scale_decay": 0.0,
        "start": 0.0,
        "method": "nag",
    }
    pictures = [base64.b64decode(each.b64_json or "") for each in answer.data]
    assert {opened(each).size for each in pictures} == {(64, 64)}

    named = client.images.generate(prompt="a shape", n=2, response_format="url", extra_body=OURS)
    assert named.data is not None
    assert [httpx2.get(each.url or "").content for each in named.data] == pictures


def test_a_stream_of_pictures(client: OpenAI) -> None:
    with client.images.generate(
        prompt="a shape", n=2, stream=True, partial_images=2, output_format="webp", extra_body=OURS
    ) as stream:
        events = list(stream)
    kinds = [each.type.removeprefix("image_generation.") for each in events]
    assert kinds == ["partial_image"] * 4 + ["completed"] * 2
    partial = [(each.index, each.partial_image_index, each.step) for each in events[:4]]
    assert [each[:2] for each in sorted(partial)] == [(0, 0), (0, 1), (1, 0), (1, 1)]
    for index in range(2):  # the two may be denoised one after the other, each in its own order
        steps = [step for of, _, step in partial if of == index]
        assert steps == sorted(steps)
    pictures = [opened(base64.b64decode(each.b64_json)) for each in events]
    assert {each.size for each in pictures[4:]} == {(64, 64)}
    assert [each.output_format for each in events[-2:]] == ["webp"] * 2


def test_guidance_reaches_the_picture(client: OpenAI) -> None:
    def made(**fields: object) -> str | None:
        answer = client.images.generate(prompt="a shape", extra_body={"seed": 3, **fields})
        assert answer.data is not None
        return answer.data[0].b64_json

    flat = made(nag_negative_prompt="a red shape", nag_scale=7)
    assert flat == made(nag={"negative_prompt": "a red shape", "scale": 7})
    assert flat != made()


def test_two_names_of_a_model_share_its_denoiser_calls(client: OpenAI, service: str) -> None:
    """Each request makes two images: a denoiser call of four or more has those of another name, too."""
    names = ["shapes-flux", "gpt-image-1", "dall-e-3"]

    def generate(name: str) -> ImagesResponse:
        return client.images.generate(model=name, prompt="a shape", n=2, extra_body={"num_inference_steps": 50})

    with ThreadPoolExecutor(len(names)) as pool:
        answers = dict(zip(names, pool.map(generate, names), strict=True))
    echoes = {name: answer.model_extra or {} for name, answer in answers.items()}
    assert {name: echo["model"] for name, echo in echoes.items()} == {name: name for name in names}
    assert {name: echo.get("alias_of") for name, echo in echoes.items()} == {
        "shapes-flux": None, "gpt-image-1": "shapes-flux", "dall-e-3": "shapes-flux",
    }  # fmt: skip
    assert min(echo["batch_size"] for echo in echoes.values()) >= 4
    [workers] = httpx2.get(f"{service}/metrics/workers").json()
    samples = of_text(httpx2.get(f"http://{workers['targets'][0]}/metrics").text)
    loads = {name[2]: value for name, value in samples.items() if name[:2] == ("nag_model_events_total", "loaded")}
    assert loads["shapes-flux"] == 1
    assert not {"gpt-image-1", "dall-e-3"} & loads.keys()


def test_a_video_from_create_to_delete(client: OpenAI) -> None:
    video = client.videos.create_and_poll(
        prompt="a shape", seconds="1", size="64x32",  # type: ignore[arg-type]
        extra_body={"seed": 7, "nag": {"scale": 7, "negative_prompt": "red"}},
    )  # fmt: skip
    assert (video.status, video.progress, video.seconds, video.size) == ("completed", 100, "1.0625", "64x32")
    assert video.expires_at is not None
    assert video.nag["scale"] == 7.0  # type: ignore[attr-defined]
    content = client.videos.download_content(video.id).read()
    assert read(content).frames.shape == (17, 32, 64, 3)
    thumbnail = Image.open(io.BytesIO(client.videos.download_content(video.id, variant="thumbnail").read()))
    assert (thumbnail.format, thumbnail.size) == ("JPEG", (64, 32))

    other = client.videos.create(prompt="another")
    assert [each.id for each in client.videos.list(limit=1)][:2] == [other.id, video.id]  # it fetches page after page
    assert client.videos.list(order="asc").data[-1].id == other.id
    for each in (video, other):
        assert client.videos.delete(each.id).deleted
        with pytest.raises(openai.NotFoundError):
            client.videos.retrieve(each.id)


def test_a_picture_to_start_from_is_refused_by_name(client: OpenAI) -> None:
    with pytest.raises(openai.BadRequestError) as refused:
        client.videos.create(prompt="a shape", input_reference=("cat.png", b"\x89PNG"))
    assert (refused.value.code, refused.value.param) == ("unsupported_parameter", "input_reference")


def test_an_edit_of_a_picture(client: OpenAI) -> None:
    """What the mask does not show stays; the rest, and with less strength all of it, is near to what was sent."""
    made = client.images.generate(
        model="shapes-flux", prompt="a red circle on a white background", extra_body={"seed": 3}
    )
    assert made.data is not None
    sent = base64.b64decode(made.data[0].b64_json or "")
    mask = Image.new("RGBA", (64, 64))
    mask.paste("black", (0, 0, 32, 64))  # the left half is kept
    hole = io.BytesIO()
    mask.save(hole, "PNG")
    answer = client.images.edit(
        image=("red.png", sent), mask=("mask.png", hole.getvalue()), prompt="a blue square on a black background",
        n=2, extra_body={"strength": 1.0, "nag_negative_prompt": "a red shape", **OURS},
    )  # fmt: skip
    assert answer.data is not None
    assert answer.nag["applied"]  # type: ignore[attr-defined]
    before = np.asarray(opened(sent)).astype(int)
    for each in answer.data:
        after = np.asarray(opened(base64.b64decode(each.b64_json or ""))).astype(int)
        assert np.array_equal(after[:, :32], before[:, :32])
        assert np.abs(after[:, 32:] - before[:, 32:]).mean() > 5

    with client.images.edit(
        image=[("red.png", sent)], prompt="a red circle on a white background", stream=True, partial_images=1,
        extra_body={"strength": 0.1, "num_inference_steps": 20, "seed": 3},
    ) as stream:  # fmt: skip
        events = list(stream)
    assert [each.type for each in events] == ["image_edit.partial_image", "image_edit.completed"]
    after = np.asarray(opened(base64.b64decode(events[-1].b64_json))).astype(int)
    assert np.abs(after - before).mean() < 10

    with pytest.raises(openai.BadRequestError) as refused:
        client.images.edit(model=MODEL, image=("red.png", sent), prompt="a shape")
    assert (refused.value.code, refused.value.param) == ("not_an_image_model", "model")
