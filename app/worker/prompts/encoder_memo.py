"""Encoded prompts kept for later requests: what a pipeline's `encode_prompt` returned, by all that it was made of."""

from __future__ import annotations

import functools
from collections import OrderedDict
from collections.abc import Callable, Hashable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from app.worker.engine.pipelines import family_or_default, signature_of
from app.worker.prompts.tokens import PromptReading, TokenizerWatch
from app.worker.recorder import Event, Recorder

__all__ = ["EncodedPrompt", "EncoderMemo", "memoize_encoders"]

#: Arguments that compare by what they say; a call with any other (an image) is not memoized.
PLAIN = (str, int, float, bool, type(None), torch.dtype, torch.device)


@dataclass(frozen=True)
class EncodedPrompt:
    """What an encoder returned, in main memory, and how the tokenizers read its prompts."""

    values: Any
    readings: Mapping[str, tuple[PromptReading, ...]]


class EncoderMemo:
    """Encoded prompts, at most `bytes_max`; the least recently used makes room. For one thread."""

    def __init__(self, bytes_max: int) -> None:
        self._bytes_max = bytes_max
        self._prompts: OrderedDict[Hashable, tuple[EncodedPrompt, int]] = OrderedDict()
        self.held_bytes = 0

    def __len__(self) -> int:
        return len(self._prompts)

    def get(self, key: Hashable) -> EncodedPrompt | None:
        """Returns the encoded prompt, or None."""
        if key not in self._prompts:
            return None
        self._prompts.move_to_end(key)
        return self._prompts[key][0]

    def put(self, key: Hashable, prompt: EncodedPrompt) -> None:
        """Keeps an encoded prompt, unless it alone is too large."""
        size = sum(tensor.nbytes for tensor in _tensors(prompt.values))
        if key in self._prompts or size > self._bytes_max:
            return
        self._prompts[key] = prompt, size
        self.held_bytes += size
        while self.held_bytes > self._bytes_max:
            self.held_bytes -= self._prompts.popitem(last=False)[1][1]


def memoize_encoders(
    pipe: Any, model: str, weights: Hashable, memo: EncoderMemo, recorder: Recorder, watch: TokenizerWatch
) -> None:
    """Makes `pipe`, a call's own copy of a pipeline, take from the memo what it has encoded before.

    The prompt, CFG's negative prompt and the guidance's go the same way, each as the pipeline encodes it. `weights`
    stands for those of the text encoders, adapters included: what was encoded with others is not taken.
    """
    for name in family_or_default(pipe).encoders:
        if hasattr(pipe, name):
            vars(pipe)[name] = _memoized(pipe, name, model, weights, memo, recorder, watch)


def _memoized(
    pipe: Any, name: str, model: str, weights: Hashable, memo: EncoderMemo, recorder: Recorder, watch: TokenizerWatch
) -> Callable[..., Any]:
    encode: Callable[..., Any] = getattr(pipe, name)
    kind = type(pipe)
    signature = signature_of(kind, name)

    @functools.wraps(encode)
    def encode_prompt(*args: Any, **kwargs: Any) -> Any:
        bound = signature.bind(pipe, *args, **kwargs)
        bound.apply_defaults()
        _, *named = bound.arguments.items()
        arguments = dict(named)
        watch.max_sequence_length = arguments.get("max_sequence_length", watch.max_sequence_length)
        groups = list(_texts(arguments))
        plain = _plain(list(arguments.items()))
        if plain is None:
            values = encode(*args, **kwargs)
            watch.assign(*groups)
            return values
        key = (model, kind, name, weights, plain)
        found = memo.get(key)
        recorder.add(Event.PROMPT_MISS if found is None else Event.PROMPT_HIT, model)
        device = arguments.get("device") or pipe._execution_device
        if found is not None:
            watch.readings |= found.readings
            return _map(found.values, lambda tensor: tensor.to(device, copy=True))
        values = encode(*args, **kwargs)
        watch.assign(*groups)
        readings = {text: watch.readings[text] for texts in groups for text in texts if text in watch.readings}
        memo.put(key, EncodedPrompt(_map(values, lambda tensor: tensor.to("cpu", copy=True)), readings))
        return values

    bound_parameters = list(signature.parameters.values())[1:]
    encode_prompt.__signature__ = signature.replace(parameters=bound_parameters)  # type: ignore[attr-defined]
    return encode_prompt


def _texts(arguments: Mapping[str, Any]) -> Iterator[list[str]]:
    """Yields the prompts among the arguments of an encoder, a list for each argument."""
    for value in arguments.values():
        texts = [value] if isinstance(value, str) else value
        if isinstance(texts, list) and texts and all(isinstance(text, str) for text in texts):
            yield list(texts)  # Z-Image's pipeline writes its template into the caller's list


def _plain(value: Any) -> Hashable | None:
    """Returns a value as what can be compared; None if it holds anything but plain values."""
    if isinstance(value, dict):
        value = list(value.items())
    if isinstance(value, list | tuple):
        parts = tuple(_plain(part) for part in value)
        return None if None in parts else parts
    return (type(value).__name__, value) if isinstance(value, PLAIN) else None


def _map(value: Any, change: Callable[[Tensor], Tensor]) -> Any:
    """Returns the same structure of tuples, lists, dicts and values with each tensor changed."""
    if isinstance(value, Tensor):
        return change(value)
    if isinstance(value, dict):
        return {name: _map(part, change) for name, part in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(_map(part, change) for part in value)
    return value


def _tensors(value: Any) -> Iterator[Tensor]:
    if isinstance(value, Tensor):
        yield value
    parts = value.values() if isinstance(value, dict) else value if isinstance(value, list | tuple) else ()
    for part in parts:
        yield from _tensors(part)
