"""Prompts encoded once: rows of a pipeline's own `encode_prompt`, kept by all that they were made of."""

from __future__ import annotations

import functools
import inspect
from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from app.worker.pipelines import family_or_default
from app.worker.recorder import Event, Recorder
from app.worker.tokens import PromptReading, TokenizerWatch, watch_tokenizers
from nag.compat import weights_fingerprint
from nag.families import Family

__all__ = ["EncodedPrompt", "PromptCache", "encoding_kept"]

#: Arguments beside the prompts that can stand in a key by what they print; with any other the cache is left out.
PLAIN = (str, int, float, bool, type(None), torch.dtype, torch.device)

Row = tuple[Any, ...]  # one prompt's part of each returned value, by the names of `Family.encoded`
Encode = Callable[..., tuple[Any, ...]]


@dataclass(frozen=True)
class EncodedPrompt:
    """A prompt's row, and how the tokenizers read it."""

    row: Row
    readings: tuple[PromptReading, ...] = ()


class PromptCache:
    """Prompts in main memory, at most `most_bytes`; the least recently used makes room. For one thread at a time."""

    def __init__(self, most_bytes: int) -> None:
        self._most_bytes = most_bytes
        self._rows: OrderedDict[Any, tuple[EncodedPrompt, int]] = OrderedDict()
        self.held_bytes = 0

    def __len__(self) -> int:
        return len(self._rows)

    def get(self, key: Any) -> EncodedPrompt | None:
        if key not in self._rows:
            return None
        self._rows.move_to_end(key)
        return self._rows[key][0]

    def put(self, key: Any, prompt: EncodedPrompt) -> None:
        """Keep a prompt, unless it alone is too large."""
        parts = [part for value in prompt.row for part in (value if isinstance(value, list) else [value])]
        size = sum(part.nbytes for part in parts if isinstance(part, Tensor))
        if key in self._rows or size > self._most_bytes:
            return
        self._rows[key] = prompt, size
        self.held_bytes += size
        while self.held_bytes > self._most_bytes:
            self.held_bytes -= self._rows.popitem(last=False)[1][1]


@contextmanager
def encoding_kept(pipe: Any, model: str, cache: PromptCache, recorder: Recorder) -> Iterator[TokenizerWatch]:
    """Within the block `pipe` encodes only prompts that the cache does not hold: its own, CFG's and the guidance's.

    `pipe` must be this call's own copy of the pipeline. A family without `encoded_rows` encodes every prompt anew.
    """
    family = family_or_default(pipe)
    with watch_tokenizers(pipe) as watch:
        if family.encoded_rows is not None and hasattr(pipe, "encode_prompt"):
            pipe.encode_prompt = _cache_encode_prompt(pipe, model, family, cache, recorder, watch)
        try:
            yield watch
        finally:
            pipe.__dict__.pop("encode_prompt", None)


def _cache_encode_prompt(
    pipe: Any, model: str, family: Family, cache: PromptCache, recorder: Recorder, watch: TokenizerWatch
) -> Encode:
    encode: Encode = pipe.encode_prompt
    signature = inspect.signature(encode)
    parts = (part for name, part in pipe.components.items() if name.startswith("text_encoder"))
    # Adapters may be put on a text encoder, or fused into it, at any time.
    of = hash((model, *(tuple(weights_fingerprint(part)) for part in parts if isinstance(part, nn.Module))))

    @functools.wraps(encode)
    def encode_prompt(*args: Any, **kwargs: Any) -> tuple[Any, ...]:
        bound = signature.bind(*args, **kwargs)
        arguments = dict(bound.arguments)  # as given; what the key holds has the defaults too
        bound.apply_defaults()
        watch.max_sequence_length = bound.arguments.get("max_sequence_length", watch.max_sequence_length)
        asked = {name: value for name, value in bound.arguments.items() if value != {}}  # `**kwargs` of nothing
        prompts, negatives = asked.pop("prompt", None), asked.pop("negative_prompt", None)
        in_cfg = bool(asked.pop("do_classifier_free_guidance", False))
        if not _texts(prompts) or (in_cfg and not _texts(negatives)) or not _plain(asked):
            return encode(*args, **kwargs)
        rest = repr(sorted(asked.items(), key=lambda each: each[0]))

        def rows(texts: Sequence[str], role: str, more: Callable[[list[str]], dict[str, Any]]) -> list[Row]:
            """A row for each text; `more` changes the call's arguments to encode the texts it is given."""
            keys = [(of, role, text, rest) for text in texts]
            found = {key: prompt for key in keys if (prompt := cache.get(key)) is not None}
            missing = {key: key[2] for key in keys if key not in found}
            recorder.add(Event.PROMPT_HIT, model, len(keys) - len(missing))
            recorder.add(Event.PROMPT_MISS, model, len(missing))
            watch.readings |= {key[2]: prompt.readings for key, prompt in found.items()}
            if missing:
                values = encode(**(arguments | more(list(missing.values()))))
                watch.assign(list(missing.values()))
                for i, (key, text) in enumerate(missing.items()):
                    found[key] = EncodedPrompt(_row(family, values, i), watch.readings.get(text, ()))
                    cache.put(key, found[key])
            return [found[key].row for key in keys]

        alone = {"do_classifier_free_guidance": False} if "do_classifier_free_guidance" in signature.parameters else {}
        cleared = {"negative_prompt": None} if "negative_prompt" in signature.parameters else {}
        positive = rows(prompts, "prompt", lambda texts: {"prompt": texts, **alone, **cleared})
        negative = []
        if in_cfg:
            both = {"do_classifier_free_guidance": True}
            negative = rows(negatives, "negative", lambda texts: {"prompt": texts, "negative_prompt": texts, **both})
        device = asked.get("device") or pipe._execution_device
        return _joined(family, positive, negative, device)

    return encode_prompt


def _texts(value: Any) -> bool:
    return isinstance(value, list) and bool(value) and all(isinstance(each, str) for each in value)


def _plain(arguments: dict[str, Any]) -> bool:
    """Whether the rest of a call can be told from another's; one picture a prompt, for so are the rows taken."""
    values = [each for value in arguments.values() for each in (value if isinstance(value, list | tuple) else [value])]
    copies = (arguments.get(name, 1) for name in ("num_images_per_prompt", "num_videos_per_prompt"))
    return all(isinstance(each, PLAIN) for each in values) and all(each in (1, None) for each in copies)


def _row(family: Family, values: Sequence[Any], index: int) -> Row:
    """One prompt's part of what encode_prompt returned for several, in main memory and alone there."""
    if family.encoded_rows == "trimmed":
        embeds, mask = values
        row = embeds[index] if mask is None else embeds[index, : int(mask[index].sum())]
        return row.to("cpu", copy=True), None
    return tuple(_part(name, value, index) for name, value in zip(family.encoded, values, strict=False))


def _part(name: str, value: Any, index: int) -> Any:
    """One prompt's part of a value: of a list its one item in a list, of a tensor (B, ...) its row."""
    if isinstance(value, list):
        return [row.to("cpu", copy=True) for row in value[index : index + 1]]
    if not isinstance(value, Tensor):  # a value that this call has not
        return value
    return (value if name.endswith("_ids") else value[index]).to("cpu", copy=True)


def _joined(family: Family, positive: Sequence[Row], negative: Sequence[Row], device: Any) -> tuple[Any, ...]:
    """As encode_prompt would have returned them for all of the prompts together."""
    if family.encoded_rows == "trimmed":
        return _padded([embeds for embeds, _ in positive], device)
    values: list[Any] = []
    for i, name in enumerate(family.encoded[: len(positive[0])]):
        parts = [row[i] for row in (negative if name.startswith("negative_") and negative else positive)]
        first = parts[0]
        if isinstance(first, list):
            values.append([row.to(device) for part in parts for row in part])
        elif not isinstance(first, Tensor):
            values.append(first)
        else:
            values.append((first if name.endswith("_ids") else torch.stack(parts)).to(device))
    return tuple(values)


def _padded(rows: Sequence[Tensor], device: Any) -> tuple[Tensor, Tensor | None]:
    """Rows (L, C) as long as the longest of them, (B, L, C), and their mask, (B, L); None if all are that long."""
    embeds = nn.utils.rnn.pad_sequence(list(rows), batch_first=True).to(device)
    if len({len(row) for row in rows}) == 1:
        return embeds, None
    ones = [torch.ones(len(row), dtype=torch.long) for row in rows]
    return embeds, nn.utils.rnn.pad_sequence(ones, batch_first=True).to(device)
