"""What one version of the service wrote and another reads, while both run."""

from __future__ import annotations

import json
from dataclasses import MISSING, asdict, fields, replace
from typing import Any

import pytest

from app.catalog import NAGDefaults
from app.jobs import (
    AppliedGuidance,
    Artifact,
    Generation,
    Guidance,
    InputFile,
    InputRole,
    LoraUse,
    Result,
    Timings,
)
from app.queue.serialization import generation_from_json, result_from_json, to_json

RESULT = Result(
    (Artifact("job-0-00000000.png", "image/png", 10, 7),),
    AppliedGuidance(True, None, 5.0, 2.5, 0.25, 1.0),
    2,
    Timings(1.0, 2.0, 3.0, 4.0, 5.0),
)
REQUEST: dict[str, Any] = {
    "model": "m", "prompt": "a shape", "negative_prompt": None, "seed": 7, "num_inference_steps": 4,
    "guidance_scale": 1.0,
    "width": 64, "height": 64, "n": 1, "output_format": "png", "output_compression": 100, "nag": None,
}  # fmt: skip


def test_what_a_request_gained_since_has_a_default() -> None:
    read = generation_from_json(json.dumps(REQUEST))
    assert {**asdict(read), **REQUEST} == asdict(read)
    assert {each.name for each in fields(Generation) if each.default is MISSING} == REQUEST.keys()


def test_a_request_with_loras_is_read_as_it_was_written() -> None:
    uses = (LoraUse("watercolor", 0.8), LoraUse("outlined", 1.0))
    request = replace(generation_from_json(json.dumps(REQUEST)), loras=uses)
    assert generation_from_json(to_json(request)) == request
    assert generation_from_json(json.dumps(REQUEST)).loras == ()


def test_the_former_name_of_a_number_is_read() -> None:
    numbers: dict[str, Any] = {"scale": 5.0, "tau": 2.5, "alpha": 0.25, "end": 1.0}
    written = json.dumps(REQUEST | {"nag": {**numbers, "negative_prompt": "x", "anneal": 0.5}})
    assert generation_from_json(written).nag == Guidance(**numbers, negative_prompt="x", scale_decay=0.5)
    result = json.loads(to_json(RESULT))
    del result["nag"]["scale_decay"]
    result["nag"]["anneal"] = 0.5
    assert result_from_json(json.dumps(result)).nag == replace(RESULT.nag, scale_decay=0.5)
    assert NAGDefaults(**numbers, anneal=0.5) == NAGDefaults(**numbers, scale_decay=0.5)  # type: ignore[call-arg]
    with pytest.raises(ValueError, match="anneal is a former name of scale_decay"):
        NAGDefaults(**numbers, anneal=0.5, scale_decay=1.0)  # type: ignore[call-arg]


def test_what_a_request_starts_from_is_read() -> None:
    files = (InputFile(InputRole.FIRST_FRAME, "a.png", "ab"), InputFile(InputRole.LAST_FRAME, "b.png", "cd"))
    request = Generation(**REQUEST, inputs=files)
    assert generation_from_json(to_json(request)) == request
    assert request.task == "image_to_video"


@pytest.mark.parametrize(("mask", "task"), [(None, "img2img"), ("b.png", "inpaint")])
def test_an_edit_of_a_former_version_is_read(mask: str | None, task: str) -> None:
    edit = {"strength": 0.5, "image": "a.png", "mask": mask}
    read = generation_from_json(json.dumps(REQUEST | {"edit": edit}))
    assert (read.task, read.strength, read.steps) == (task, 0.5, 2)
    assert [file.name for file in read.inputs] == (["a.png"] if mask is None else ["a.png", "b.png"])
    assert generation_from_json(json.dumps(REQUEST | {"edit": None})) == Generation(**REQUEST)


def test_a_request_of_a_later_version_is_not_done_by_half() -> None:
    with pytest.raises(TypeError, match="not_known_yet"):
        generation_from_json(json.dumps(REQUEST | {"not_known_yet": 1}))


def test_a_result_of_a_later_version_is_read_as_far_as_it_is_known() -> None:
    assert result_from_json(to_json(RESULT)) == RESULT
    later = json.loads(to_json(replace(RESULT, warnings=("w",))))
    for part in (later, later["artifacts"][0], later["nag"], later["timings"]):
        part["not_known_yet"] = 1
    assert result_from_json(json.dumps(later)) == replace(RESULT, warnings=("w",))
