"""Makes an image and then changes it: before.png and after.png."""

import base64
import sys

import httpx

URL = sys.argv[1] if len(sys.argv) > 1 else "http://127.0.0.1:8000"


def save(answer: httpx.Response, path: str) -> bytes:
    """Saves the first image of an answer, and returns its bytes."""
    answer.raise_for_status()
    data = base64.b64decode(answer.json()["data"][0]["b64_json"])
    with open(path, "wb") as file:
        file.write(data)
    return data


with httpx.Client(base_url=URL, timeout=120) as client:
    before = save(client.post("/v1/images/generations", json={"prompt": "a red circle", "seed": 7}), "before.png")
    # Strength is the share of the steps that is run on the image.
    form = {"prompt": "a blue circle", "strength": "0.75", "seed": "7", "negative_prompt": "a red shape"}
    files = {"image": ("before.png", before, "image/png")}
    save(client.post("/v1/images/edits", data=form, files=files), "after.png")
