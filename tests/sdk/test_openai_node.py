"""OpenAI's own npm SDK, unmodified, against the whole service."""

from __future__ import annotations

import base64
import io
import json

from PIL import Image

from tests.catalogs import MODEL
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
        "model": ["NotFoundError", 404, "model_not_found", "model"],
        "quality": ["BadRequestError", 400, "unsupported_parameter", "quality"],
        "field": ["UnprocessableEntityError", 422, "invalid_request", "promt"],
        "file": ["BadRequestError", 400, "unsupported_parameter", "input_reference"],
    }
