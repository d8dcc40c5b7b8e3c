"""OpenAI's own Python SDK, unmodified: edits of several images, videos that start from an image or a video, files."""

from __future__ import annotations

import base64
import io
from collections.abc import Iterator

import openai
import pytest
from openai import OpenAI
from PIL import Image

from tests.pictures import png
from tests.videos import read

pytestmark = pytest.mark.filterwarnings("ignore:The Sora API is scheduled:DeprecationWarning")

COLORS = ("red", "green", "blue", "yellow")
FILES = [(f"{color}.png", png(Image.new("RGB", (64, 64), color))) for color in COLORS]


@pytest.fixture(scope="module")
def client(files_service: str) -> Iterator[OpenAI]:
    with OpenAI(base_url=f"{files_service}/v1", api_key="none is asked for") as client:
        yield client


def test_edits_of_one_two_and_four_images(client: OpenAI) -> None:
    made = []
    for count in (1, 2, 4):
        answer = client.images.edit(
            model="told", image=FILES[:count], prompt="make it blue", input_fidelity="high",
            extra_body={"seed": 7, "negative_prompt": "a red shape"},
        )  # fmt: skip
        assert answer.data is not None
        assert answer.nag["applied"]  # type: ignore[attr-defined]
        made.append(answer.data[0].b64_json)
        image = Image.open(io.BytesIO(base64.b64decode(answer.data[0].b64_json or "")))
        assert image.size == (64, 64)
    assert len(set(made)) == 3  # each image matters
    with pytest.raises(openai.BadRequestError) as refused:
        client.images.edit(model="told", image=[*FILES, FILES[0]], prompt="make it blue")
    assert (refused.value.code, refused.value.param) == ("not_an_editing_model", "model")


def test_a_video_from_an_image_and_one_from_that_video(client: OpenAI) -> None:
    video = client.videos.create_and_poll(
        model="film", prompt="a shape moving", input_reference=FILES[0],
        extra_body={"seed": 7, "negative_prompt": "a red shape"},
    )  # fmt: skip
    assert video.status == "completed", video
    assert video.nag["applied"]  # type: ignore[attr-defined]
    content = client.videos.download_content(video.id).read()
    assert read(content).frames.shape == (9, 48, 48, 3)

    other = client.videos.create_and_poll(model="changing", prompt="a shape", input_reference=("a.mp4", content))
    assert (other.status, other.size) == ("completed", "48x48")
    remix = client.videos.remix(other.id, prompt="a blue shape")
    assert remix.remixed_from_video_id == other.id
    assert client.videos.poll(remix.id).status == "completed"
    with pytest.raises(openai.BadRequestError) as refused:
        client.videos.remix(video.id, prompt="a blue shape")
    assert (refused.value.code, refused.value.param) == ("unsupported_parameter", "model")
    with pytest.raises(openai.BadRequestError) as refused:
        client.videos.create(model="film", prompt="a shape")
    assert refused.value.param == "first_frame"


def test_a_file_from_upload_to_delete(client: OpenAI) -> None:
    file = client.files.create(file=FILES[0], purpose="vision", expires_after={"anchor": "created_at", "seconds": 3600})
    assert (file.filename, file.bytes, file.purpose) == ("red.png", len(FILES[0][1]), "vision")
    assert client.files.retrieve(file.id) == file
    assert [each.id for each in client.files.list()] == [file.id]
    assert client.files.content(file.id).read() == FILES[0][1]
    video = client.videos.create(
        model="film", prompt="a shape",
        extra_body={"input_reference": {"file_id": file.id}},
    )  # fmt: skip
    assert client.files.delete(file.id).deleted
    assert client.videos.poll(video.id).status == "completed"
    with pytest.raises(openai.NotFoundError):
        client.files.retrieve(file.id)
