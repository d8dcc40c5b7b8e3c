"""Says which of a request's prompts its model did not read whole."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from app.jobs import Generation
from app.worker.prompts.tokens import PromptReading

__all__ = ["PromptTooLong", "check_prompts"]

Readings = Mapping[str, Sequence[PromptReading]]


class PromptTooLong(Exception):
    """Raised before the first step of a strict job whose prompt the model does not read whole; says which part."""


def check_prompts(request: Generation, readings: Readings) -> Iterator[str]:
    """Yields warnings about the prompts of the request that were encoded.

    Raises PromptTooLong for a strict request with words that reach none of the model's text encoders.
    """
    for field, prompt in _prompts(request):
        read = readings.get(prompt, ())
        cut = [reading for reading in read if reading.cut_word]
        if cut and len(cut) == len(read):
            widest = max(cut, key=lambda reading: reading.cut_word)
            message = f"{field}: the model reads {_part(widest)} has no effect"
            if request.strict:
                raise PromptTooLong(message)
            yield message
        else:
            for reading in cut:
                yield f"{field}: {reading.tokenizer} reads {_part(reading)} reaches other text encoders alone"
        for reading in read:
            if reading.unknown:
                words = ", ".join(f'"{word}"' for word in reading.unknown)
                yield f"{field}: {reading.tokenizer} has no tokens for {words}"


def _prompts(request: Generation) -> Iterator[tuple[str, str]]:
    yield "prompt", request.prompt
    negative = request.negative_prompt
    if negative and request.cfg:
        yield "negative_prompt", negative
    if request.nag is not None and not (request.cfg and request.nag.negative_prompt == negative):
        name = "negative_prompt" if request.nag.negative_prompt == negative else "nag.negative_prompt"
        yield name, request.nag.negative_prompt


def _part(reading: PromptReading) -> str:
    return (
        f"{reading.tokens_read} of its {reading.tokens} tokens; "
        f'the text from word {reading.cut_word} ("{reading.cut_text}") on'
    )
