"""The requests of the benchmark of a worker's memory: every kind of them is accepted and completed."""

from __future__ import annotations

from itertools import islice

import pytest

from benchmarks.joining.load import RequestFailed, connect
from benchmarks.resident_memory import Request, requests, send

pytestmark = pytest.mark.slow  # runs a benchmark


def kind(request: Request) -> tuple[bool, bool, bool, bool]:
    files = request.files or {}
    return "image" in files, "mask" in files, "nag" in request.body, bool(request.body.get("previews"))


async def test_edits_and_previews_reach_the_worker(service: str) -> None:
    drawn = [request for request in islice(requests(0), 1000) if request.body["model"] == "shapes-flux"]
    few_steps = [request for request in drawn if request.body["num_inference_steps"] <= 4]
    kinds = {kind(request): request for request in few_steps}
    assert len(kinds) == 8  # an edit without or with a mask, or an image without or with previews; NAG off or on
    async with connect(service) as http:
        for request in kinds.values():
            await send(http, request)
        edit = next(request for request in few_steps if request.files)
        with pytest.raises(RequestFailed, match="strength"):
            await send(http, Request({**edit.body, "strength": 2.0}, edit.files))
