"""OpenAI's own Python SDK, unmodified: edits of several images, videos that start from an image or a video, files."""

from __future__ import annotations

import base64
import io
from collections.abc import Iterator

import openai
import pytest
from openai import OpenAI
from PIL import Image

from app.cli.running import running
from tests.catalogs import CATALOG
from tests.pictures import png
from tests.tiny.flux2 import klein
from tests.tiny.wan import wan, wan_5b
from tests.videos import read

pytestmark = pytest.mark.filterwarnings("ignore:The Sora API is scheduled:DeprecationWarning")

COLORS = ("red", "green", "blue", "yellow")
FILES = [(f"{color}.png", png(Image.new("RGB", (64, 64), color))) for color in COLORS]
MORE = """
[models.told]
description = "FLUX.2 [klein] with random weights"
repository = "tiny-klein"
family = "flux2"
kind = "image"
dtype = "float32"
num_inference_steps = { default = 2, min = 1, max = 50 }
guidance_scale = { default = 1.0, min = 1.0, max = 1.0 }
width = { default = 64, min = 64, max = 64, multiple = 16 }
height = { default = 64, min = 64, max = 64, multiple = 16 }
prompt_max_chars = 2000
call = { max_sequence_length = 20, text_encoder_out_layers = [1, 2] }
nag = { scale = 5.0, tau = 2.5, alpha = 0.25, end = 1.0 }
inputs = { references = { max = 4 } }
[models.film]
extends = "tiny-wan"
repository = "tiny-wan-5b"
inputs = { first_frame = { required = true } }
[models.changing]
extends = "tiny-wan"
inputs = { video = {} }
"""


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> Iterator[OpenAI]:
    folder = tmp_path_factory.mktemp("catalog")
    (folder / "models.toml").write_text(CATALOG + MORE)
    for name, make in (("tiny-klein", klein), ("tiny-wan", wan), ("tiny-wan-5b", wan_5b)):
        make().save_pretrained(folder / name)
    with (
        running(tmp_path_factory.mktemp("service"), folder / "models.toml") as url,
        OpenAI(base_url=f"{url}/v1", api_key="none is asked for") as client,
    ):
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
        model="film", prompt="a shape moving", input_reference=FILES[0],  # type: ignore[arg-type]
        extra_body={"seed": 7, "negative_prompt": "a red shape"},
    )  # fmt: skip
    assert video.status == "completed", video
    assert video.nag["applied"]  # type: ignore[attr-defined]
    content = client.videos.download_content(video.id).read()
    assert read(content).frames.shape == (9, 48, 48, 3)

    other = client.videos.create_and_poll(model="changing", prompt="a shape", input_reference=("a.mp4", content))  # type: ignore[arg-type]
    assert (other.status, other.size) == ("completed", "48x48")
    remix = client.videos.remix(other.id, prompt="a blue shape")
    assert remix.remixed_from_video_id == other.id
    assert client.videos.poll(remix.id).status == "completed"
    with pytest.raises(openai.BadRequestError) as refused:
        client.videos.remix(video.id, prompt="a blue shape")
    assert (refused.value.code, refused.value.param) == ("unsupported_parameter", "model")
    with pytest.raises(openai.BadRequestError) as refused:
        client.videos.create(model="film", prompt="a shape")  # type: ignore[arg-type]
    assert refused.value.param == "first_frame"


def test_a_file_from_upload_to_delete(client: OpenAI) -> None:
    file = client.files.create(file=FILES[0], purpose="vision", expires_after={"anchor": "created_at", "seconds": 3600})
    assert (file.filename, file.bytes, file.purpose) == ("red.png", len(FILES[0][1]), "vision")
    assert client.files.retrieve(file.id) == file
    assert [each.id for each in client.files.list()] == [file.id]
    assert client.files.content(file.id).read() == FILES[0][1]
    video = client.videos.create(
        model="film", prompt="a shape",  # type: ignore[arg-type]
        extra_body={"input_reference": {"file_id": file.id}},
    )  # fmt: skip
    assert client.files.delete(file.id).deleted
    assert client.videos.poll(video.id).status == "completed"
    with pytest.raises(openai.NotFoundError):
        client.files.retrieve(file.id)
