"""OpenAI's own npm SDK, unmodified, against the whole service."""

from __future__ import annotations

import base64
import io
import json

from PIL import Image

from tests.catalogs import MODEL
from tests.pictures import png
from tests.sdk.node_packages import node
from tests.videos import read


def test_pictures_videos_and_errors(service: str) -> None:
    seen = json.loads(node("openai.mjs", service))
    assert set(seen["models"]) > {"shapes-flux", MODEL}

    pictures = [base64.b64decode(each) for each in seen["pictures"]]
    assert [Image.open(io.BytesIO(each)).size for each in pictures] == [(64, 64)] * 2
    assert seen["applied"] is True
    assert seen["fetched"] == seen["pictures"]
    assert seen["events"] == [["image_generation.completed", seen["pictures"][0]]]
    assert Image.open(io.BytesIO(base64.b64decode(seen["edited"]["picture"]))).size == (64, 64)
    assert seen["edited"]["applied"] is True

    video = seen["video"]
    assert (video["status"], video["seconds"], video["size"]) == ("completed", "1.0625", "64x32")
    assert (video["seed"], video["nag"]["scale"]) == (7, 7.0)
    assert read(base64.b64decode(seen["content"])).frames.shape == (17, 32, 64, 3)
    assert seen["listed"][0] == video["id"]
    assert seen["deleted"] == {"id": video["id"], "object": "video.deleted", "deleted": True}

    assert seen["errors"] == {
        "model": ["BadRequestError", 400, "model_not_found", "model"],
        "quality": ["BadRequestError", 400, "unsupported_parameter", "quality"],
        "field": ["UnprocessableEntityError", 422, "invalid_request", "promt"],
        "file": ["BadRequestError", 400, "unsupported_parameter", "input_reference"],
    }


def test_edits_of_one_two_and_four_images_and_videos_from_files(files_service: str) -> None:
    files = [png(Image.new("RGB", (64, 64), color)) for color in ("red", "green", "blue", "yellow")]
    lines = "\n".join(base64.b64encode(file).decode() for file in files)
    seen = json.loads(node("inputs.mjs", files_service, stdin=lines))

    assert [applied for applied, _ in seen["edits"]] == [True] * 3
    images = [base64.b64decode(image) for _, image in seen["edits"]]
    assert [Image.open(io.BytesIO(image)).size for image in images] == [(64, 64)] * 3
    assert len(set(images)) == 3  # each image matters
    assert seen["tooMany"] == ["BadRequestError", 400, "not_an_editing_model", "model"]
    assert seen["broken"] == ["BadRequestError", 400, "invalid_parameter", "image"]

    video = seen["video"]
    assert (video["status"], video["seed"], video["nag"]["applied"]) == ("completed", 7, True)
    assert seen["type"] == "video/mp4"
    assert read(base64.b64decode(seen["content"])).frames.shape == (9, 48, 48, 3)
    assert Image.open(io.BytesIO(base64.b64decode(seen["thumbnail"]))).size == (48, 48)
    assert seen["missing"] == ["BadRequestError", 400, "invalid_parameter", "first_frame"]
    assert seen["remix"] == ["completed", "completed", True]
    assert (seen["file"], seen["byId"]) == (["0.png", 200, True], "completed")
