"""The text about an image that AUTOMATIC1111's web UI and its clients write into files and read from them."""

from __future__ import annotations

import json
import re
from typing import Any

from app.catalog import NAG_BOUNDS
from app.jobs import Job, LoraUse

__all__ = ["SAMPLER", "infotext", "parse_infotext"]

#: The name of every model's own scheduler, here and in the lists of samplers and schedulers.
SAMPLER = "Automatic"
NEGATIVE = "Negative prompt:"
PAIR = re.compile(r'\s*([A-Za-z][\w \-/]{0,60}):\s*("(?:[^"\\]|\\.)*"|[^,]*)(?:,|$)')
#: A last line with fewer pairs is part of the prompt.
PAIRS_MIN = 3
SIZE = re.compile(r"([0-9]{1,6})x([0-9]{1,6})")


def infotext(job: Job, prompt: str, seed: int, version: str) -> str:
    """Returns the text about one image of a completed job. `prompt` is as it was sent, with the tags of LoRAs."""
    request, nag = job.request, job.result.nag if job.result else None
    lines = [prompt]
    if request.negative_prompt:
        lines.append(f"{NEGATIVE} {request.negative_prompt}")
    pairs: dict[str, Any] = {
        "Steps": request.num_inference_steps,
        "Sampler": SAMPLER,
        "CFG scale": f"{request.guidance_scale:g}",
        "Seed": seed,
        "Size": f"{request.width}x{request.height}",
        "Model": request.model,
    }
    if request.strength is not None:
        pairs["Denoising strength"] = f"{request.strength:g}"
    if nag is not None and nag.applied:
        pairs |= {f"NAG {name.replace('_', ' ')}": f"{getattr(nag, name):g}" for name in NAG_BOUNDS}
        pairs["NAG method"] = nag.method
    if request.loras:
        pairs["LoRAs"] = ", ".join(_lora_text(use) for use in request.loras)
    pairs["Version"] = version
    return "\n".join([*lines, ", ".join(f"{name}: {_quoted(str(value))}" for name, value in pairs.items())])


def parse_infotext(text: str) -> dict[str, str]:
    """Returns the prompts and the pairs of an infotext, by the names that the web UI gives them."""
    *lines, last = text.strip().split("\n")
    pairs = {match[1]: _unquoted(match[2].strip()) for match in PAIR.finditer(last)}
    if len(pairs) < PAIRS_MIN:
        lines, pairs = [*lines, last], {}
    begun = next((index for index, line in enumerate(lines) if line.startswith(NEGATIVE)), len(lines))
    negative = "\n".join(lines[begun:]).removeprefix(NEGATIVE).strip()
    fields = {"Prompt": "\n".join(lines[:begun]).strip(), "Negative prompt": negative}
    for name, value in pairs.items():
        size = SIZE.fullmatch(value)
        fields |= {name: value} if size is None else {f"{name}-1": size[1], f"{name}-2": size[2]}
    return fields


def _lora_text(use: LoraUse) -> str:
    return f"{use.id}: {use.scale:g}"


def _quoted(text: str) -> str:
    return json.dumps(text, ensure_ascii=False) if any(mark in text for mark in ',:"\n') else text


def _unquoted(text: str) -> str:
    if text[:1] != '"':
        return text
    try:
        return str(json.loads(text))
    except ValueError:
        return text
