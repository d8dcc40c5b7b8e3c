"""Says which of a request's prompts its model did not read whole."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from app.jobs import Generation
from app.worker.prompts.tokens import PromptReading

__all__ = ["PromptFinding", "PromptTooLong", "check_prompts"]

Readings = Mapping[str, Sequence[PromptReading]]


@dataclass(frozen=True)
class PromptFinding:
    """A sentence for the caller; with `has_no_effect`, some words reached none of the model's text encoders."""

    message: str
    has_no_effect: bool = False


class PromptTooLong(Exception):
    """Raised before the first step of a strict job whose prompt the model does not read whole; says which part."""


def check_prompts(request: Generation, readings: Readings) -> list[PromptFinding]:
    """Findings about each prompt of the request that was encoded."""
    return [
        finding
        for field, prompt in _prompts(request)
        for finding in (*_cut(field, readings.get(prompt, ())), *_unknown(field, readings.get(prompt, ())))
    ]


def _prompts(request: Generation) -> Iterator[tuple[str, str]]:
    yield "prompt", request.prompt
    negative = request.negative_prompt
    if negative and request.cfg:
        yield "negative_prompt", negative
    if request.nag is not None and not (request.cfg and request.nag.negative_prompt == negative):
        name = "negative_prompt" if request.nag.negative_prompt == negative else "nag.negative_prompt"
        yield name, request.nag.negative_prompt


def _cut(field: str, readings: Sequence[PromptReading]) -> Iterator[PromptFinding]:
    cut = [reading for reading in readings if reading.cut_word]
    if cut and len(cut) == len(readings):
        widest = max(cut, key=lambda reading: reading.cut_word)
        yield PromptFinding(
            f"{field}: the model reads {widest.tokens_read} of its {widest.tokens} tokens; {_rest(widest)} has no "
            "effect",
            has_no_effect=True,
        )
        return
    for reading in cut:
        yield PromptFinding(
            f"{field}: {reading.tokenizer} reads {reading.tokens_read} of its {reading.tokens} tokens; "
            f"{_rest(reading)} reaches other text encoders alone"
        )


def _rest(reading: PromptReading) -> str:
    return f'the text from word {reading.cut_word} ("{reading.cut_text}") on'


def _unknown(field: str, readings: Sequence[PromptReading]) -> Iterator[PromptFinding]:
    for reading in readings:
        if reading.unknown:
            words = ", ".join(f'"{word}"' for word in reading.unknown)
            yield PromptFinding(f"{field}: {reading.tokenizer} has no tokens for {words}")
