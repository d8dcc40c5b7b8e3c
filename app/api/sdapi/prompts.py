"""LoRAs that a prompt names, and syntax of the web UI that means nothing here."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass

from app.api.requests.generation import LORAS_MAX, LoraUseBody
from app.errors import InvalidParameter, UnsupportedParameter

__all__ = ["Prompt", "parse_prompt", "syntax_warnings"]

#: `<lora:id>`, `<lora:id:weight>` or `<lora:id:weight of text encoders:weight of the denoiser>`.
TAG = re.compile(r"<(lora|lyco|hypernet):([^<>:]{1,128})((?::[^<>:]{0,40}){0,4})>", re.IGNORECASE)
#: Weights of words, schedules of words, joined prompts.
SYNTAX = re.compile(r"\([^()]*:\s*[0-9.]+\s*\)|\[[^\[\]:]*:[^\[\]:]*:\s*[0-9.]+\s*\]|\bBREAK\b|\bAND\b")


@dataclass(frozen=True)
class Prompt:
    """A prompt without its tags, the LoRAs that they name, and what is wrong with tags."""

    text: str
    loras: tuple[LoraUseBody, ...]
    faults: tuple[InvalidParameter, ...] = ()


def parse_prompt(prompt: str, *, has_tags: bool = True) -> Prompt:
    """Splits a prompt into its text and its LoRAs."""
    tags = list(TAG.finditer(prompt)) if has_tags else []
    uses, faults = list[LoraUseBody](), list[InvalidParameter]()
    for tag in tags:
        try:
            uses.append(_use(tag))
        except InvalidParameter as fault:
            faults.append(fault)
    if len(tags) > LORAS_MAX:
        faults.append(InvalidParameter(f"prompt: at most {LORAS_MAX} LoRAs, got {len(tags)}", param="prompt"))
    return Prompt(TAG.sub("", prompt).strip() if tags else prompt, tuple(uses[:LORAS_MAX]), tuple(faults))


def syntax_warnings(name: str, text: str) -> list[str]:
    """Names the syntax in the text of a field that is read as plain text."""
    if TAG.search(text) or SYNTAX.search(text):
        return [f"{name}: weights of words such as (word:1.2), schedules, BREAK and tags in <> are read as plain text"]
    return []


def _use(tag: re.Match[str]) -> LoraUseBody:
    kind, name, weights = tag[1].lower(), tag[2].strip(), [part.strip() for part in tag[3].split(":")[1:]]
    if not name:
        raise InvalidParameter(f"prompt: {tag[0]}: must name a LoRA", param="prompt")
    if kind == "hypernet":
        raise UnsupportedParameter(f"prompt: {tag[0]}: there are no hypernetworks; leave it out", param="prompt")
    positional = [part for part in weights if "=" not in part]
    named = dict(part.split("=", 1) for part in weights if "=" in part)
    values = [_weight(tag[0], part) for part in [*positional[:2], *named.values()]]
    if len(set(values)) > 1 or named.keys() - {"te", "unet"} or len(positional) > 2:
        raise UnsupportedParameter(f"prompt: {tag[0]}: must have one weight for all parts of the model", param="prompt")
    return LoraUseBody(id=name, scale=values[0] if values else 1.0)


def _weight(tag: str, text: str) -> float:
    try:
        weight = float(text)
    except ValueError:
        weight = math.nan
    if not math.isfinite(weight):
        raise InvalidParameter(f"prompt: {tag}: its weight must be a number, got {text!r}", param="prompt")
    return weight
