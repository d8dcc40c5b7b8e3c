"""Data URLs are taken out of a JSON body without parsing them."""

from __future__ import annotations

import base64
import json
import os
import tracemalloc
from typing import Any

import pytest

from app.api.requests.uploads import replace_data_urls
from app.errors import InvalidParameter

DATA = b"\xff\xfb\xff binary"  # its base64 has slashes
URL = f"data:image/png;base64,{base64.b64encode(DATA).decode()}"


def taken(body: str) -> tuple[dict[str, Any], list[bytes]]:
    """The fields of the rest, in which the number of a file stands for it."""
    rest, uploads = replace_data_urls(body.encode())
    text = rest.decode()
    for index, name in enumerate(uploads):
        text = text.replace(json.dumps(name), str(index))
    return json.loads(text), list(uploads.values())


def test_they_are_taken_wherever_a_file_can_stand() -> None:
    fields = {"prompt": "a", "image": URL, "references": [URL, "file-1"], "images": [{"image_url": URL}], "n": 2}
    rest, files = taken(json.dumps(fields))
    assert files == [DATA] * 3
    assert rest == {"prompt": "a", "image": 0, "references": [1, "file-1"], "images": [{"image_url": 2}], "n": 2}


@pytest.mark.parametrize(
    "written",
    [
        URL.replace("/", "\\/"),  # as PHP writes it
        URL.replace("data:", "DATA:").replace(";base64", ";charset=utf-8;BASE64"),
        URL + "  ",
        URL.replace("image/png", ""),
    ],
)
def test_they_can_be_written_in_many_ways(written: str) -> None:
    rest, files = taken(f'{{"image"  :  "{written}"  , "prompt":"a"}}')
    assert (rest, files) == ({"image": 0, "prompt": "a"}, [DATA])


@pytest.mark.parametrize(
    "prompt", [URL, URL.replace("/", "\\/"), f'he said "{URL}", twice', f'\\"{URL}"', '"data:', "\\", '"data:x\\"']
)
def test_other_fields_stay_as_they_are(prompt: str) -> None:
    fields = {"prompt": prompt, "nag": {"negative_prompt": prompt}, "image": URL, prompt: 1}
    rest, files = taken(json.dumps(fields))
    assert (rest, files) == ({**fields, "image": 0}, [DATA])


@pytest.mark.parametrize("body", ["[]", "5", '"data:"', '{"image": "data:', f'["{URL}"]', f'{{"image": "{URL}"'])
def test_what_is_no_object_is_left(body: str) -> None:
    assert replace_data_urls(body.encode()) == (body.encode(), {})


@pytest.mark.parametrize("payload", ["%", "A", "AAA", "AA==AA==", "\\\\", "ä", '\\"'])
def test_broken_ones_are_refused_by_their_field(payload: str) -> None:
    with pytest.raises(InvalidParameter, match=r"references\.1: the data URL is not valid base64") as refused:
        replace_data_urls(f'{{"references": ["{URL}", "data:;base64,{payload}"]}}'.encode())
    assert refused.value.param == "references.1"


def test_a_body_is_not_copied() -> None:
    """The files themselves have three quarters of its size."""
    url = f"data:image/png;base64,{base64.b64encode(os.urandom(3_000_000)).decode()}"
    body = json.dumps({"prompt": "a", "references": [url] * 4}).encode()
    tracemalloc.start()
    try:
        _, uploads = replace_data_urls(body)
        _, peak_bytes = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert [len(data) for data in uploads.values()] == [3_000_000] * 4
    assert peak_bytes < 12_200_000
