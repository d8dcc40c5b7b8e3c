"""What a file says about its own making: a request that would make it again, as JSON."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from importlib.metadata import version

from app.catalog import NAG_BOUNDS
from app.jobs import AppliedGuidance, Generation

__all__ = ["SOFTWARE", "parameters"]

SOFTWARE = f"nag-server {version('nag-server')}"
#: What a file shows by itself, or what is no property of one image.
LEFT_OUT = (
    "n",
    "nag",
    "output_format",
    "output_compression",
    "video_codec",
    "embed_metadata",
    "previews",
    "inputs",
    "remix_of",
    "alias",
)


def parameters(request: Generation, seed: int, applied: AppliedGuidance, warnings: Sequence[str] = ()) -> str:
    """Returns the fields of POST /v1/jobs for this one image or video, with what was really used, and `software`; of
    the files it started from `role` and `sha256`, the digest of what was sent; and the `warnings` of the request.
    """
    said = {name: value for name, value in asdict(request).items() if name not in LEFT_OUT}
    said["seed"] = seed
    if request.strict:
        del said["strict"]  # the default of the API
    if not request.loras:
        del said["loras"]
    if applied.applied and request.nag is not None:
        numbers = {name: getattr(applied, name) for name in NAG_BOUNDS}
        said["nag"] = {**numbers, "method": applied.method, "negative_prompt": request.nag.negative_prompt}
    if request.inputs:
        said["inputs"] = [{"role": file.role, "sha256": file.sha256} for file in request.inputs]
    if warnings:
        said["warnings"] = list(warnings)
    said["software"] = SOFTWARE
    return json.dumps({name: value for name, value in said.items() if value is not None}, ensure_ascii=False)
