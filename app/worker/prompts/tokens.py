"""Records what the tokenizers of a pipeline call read of each prompt, and what they cut off or do not know."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from contextvars import ContextVar
from dataclasses import dataclass
from functools import wraps
from typing import Any

from transformers import PreTrainedTokenizerBase

from app.worker.engine.pipelines import signature_of

__all__ = ["PromptReading", "TokenizerWatch", "route_tokenizers", "watch_tokenizers"]

QUOTE_MAX_CHARS = 40
UNKNOWN_MAX = 5  # words per prompt and tokenizer


@dataclass(frozen=True)
class PromptReading:
    """How one tokenizer read one prompt. Tokens are the prompt's own, without special ones and a model's template."""

    tokenizer: str  # the component's name in the pipeline
    tokens: int
    tokens_read: int
    cut_word: int = 0  # number of the first word that was cut, from 1; 0 if none was
    cut_text: str = ""  # the text from there on, shortened
    unknown: tuple[str, ...] = ()  # words with a character that the tokenizer has no token for


_WATCH: ContextVar[TokenizerWatch | None] = ContextVar("tokenizer_watch", default=None)


@dataclass(frozen=True)
class _Call:
    """One call of a tokenizer that may cut texts."""

    name: str
    tokenizer: Any
    texts: Sequence[str]
    max_tokens: int
    has_specials: bool  # begin and end tokens are added


class TokenizerWatch:
    """Readings of one pipeline call, by prompt."""

    def __init__(self, max_sequence_length: int | None = None) -> None:
        self.readings: dict[str, tuple[PromptReading, ...]] = {}
        self.max_sequence_length = max_sequence_length  # of the pipeline call
        self._calls: list[_Call] = []

    def called(self, name: str, tokenizer: Any, text: Any, options: Mapping[str, Any]) -> None:
        texts = [text] if isinstance(text, str) else text
        if not options.get("truncation") or not isinstance(texts, list) or not tokenizer.is_fast:
            return
        if all(isinstance(one, str) for one in texts):
            max_tokens = options.get("max_length") or tokenizer.model_max_length
            self._calls.append(_Call(name, tokenizer, texts, max_tokens, options.get("add_special_tokens", True)))

    def assign(self, *groups: Sequence[str]) -> None:
        """Reads the calls since the last time. Each group holds prompts that were encoded together, in order."""
        found: dict[str, dict[str, PromptReading]] = {}
        for call in self._calls:
            for index, text in enumerate(call.texts):
                prompt = _prompt_of(text, index, len(call.texts), groups)
                if prompt:
                    found.setdefault(prompt, {})[call.name] = _read(call, text, prompt, self.max_sequence_length)
        self._calls.clear()
        self.readings |= {prompt: tuple(readings.values()) for prompt, readings in found.items()}


def watch_tokenizers(pipe: Any) -> TokenizerWatch:
    """Begins to record what the pipeline's tokenizers read in the calling context (thread, greenlet or task).

    `route_tokenizers` must have been called for the pipeline that it is a copy of.
    """
    parameter = signature_of(type(pipe), "__call__").parameters.get("max_sequence_length")
    watch = TokenizerWatch(None if parameter is None else parameter.default)
    _WATCH.set(watch)
    return watch


def route_tokenizers(pipe: Any, stack: ExitStack) -> None:
    """Makes the pipeline's tokenizers report to the watch of the calling context, until the stack closes.

    Python looks `__call__` up on the class, so each tokenizer is of one of its own until then.
    """
    for name, component in pipe.components.items():
        tokenizer = getattr(component, "tokenizer", component)  # a processor has one
        if isinstance(tokenizer, PreTrainedTokenizerBase):
            stack.callback(setattr, tokenizer, "__class__", type(tokenizer))
            tokenizer.__class__ = _watched(type(tokenizer), name)


def _watched(kind: type, name: str) -> type:
    plain: Callable[..., Any] = kind.__call__

    @wraps(plain)
    def call(self: Any, text: Any = None, *args: Any, **kwargs: Any) -> Any:
        watch = _WATCH.get()
        if watch is not None:
            watch.called(name, self, text, kwargs)
        return plain(self, text, *args, **kwargs)

    return type(kind.__name__, (kind,), {"__call__": call, "__module__": kind.__module__})


def _prompt_of(text: str, index: int, count: int, groups: Sequence[Sequence[str]]) -> str:
    """Returns the prompt that `text` was made of: by a template around it, or by cleaning it; "" if that cannot be
    told.
    """
    likely = [group[index] for group in groups if len(group) == count]
    for prompts in (likely, [prompt for group in groups for prompt in group]):
        contained = [prompt for prompt in prompts if prompt.strip() and _find(text, prompt) >= 0]
        if contained:
            return max(contained, key=len)
    return likely[0] if len(likely) == 1 else ""


def _find(text: str, prompt: str) -> int:
    return text.lower().find(prompt.strip().lower())


def _read(call: _Call, text: str, prompt: str, max_sequence_length: int | None) -> PromptReading:
    start = _find(text, prompt)
    end = len(text) if start < 0 else start + len(prompt.strip())
    start = max(0, start)
    whole = call.tokenizer(
        text, truncation=False, padding=False, add_special_tokens=call.has_specials,
        return_offsets_mapping=True, return_special_tokens_mask=True, verbose=False,
    )  # fmt: skip
    ids, offsets, specials = (whole[name] for name in ("input_ids", "offset_mapping", "special_tokens_mask"))
    own = [i for i, span in enumerate(offsets) if not specials[i] and span[0] < end and span[1] > start]
    if not own:
        return PromptReading(call.name, 0, 0)
    window = call.max_tokens
    if start > 0 and max_sequence_length is not None:  # pipelines drop the template before the prompt, then cut again
        window = min(window, own[0] + max_sequence_length)
    ending = next((count for count, special in enumerate(reversed(specials)) if not special), 0)
    is_cut = len(ids) > window
    read = [i for i in own if not is_cut or i < window - ending]
    cut_word, cut_text = 0, ""
    if len(read) < len(own):
        at = _word_start(text, offsets[own[len(read)]][0], start, end)
        cut_word, cut_text = len(text[start:at].split()) + 1, _shortened(text[at:end])
    return PromptReading(
        call.name, len(own), len(read), cut_word, cut_text, _unknown(call.tokenizer, ids, offsets, own, text)
    )


def _unknown(
    tokenizer: Any, ids: Sequence[int], offsets: Sequence[tuple[int, int]], own: Sequence[int], text: str
) -> tuple[str, ...]:
    unknown = tokenizer.unk_token_id
    if unknown is None or unknown in (tokenizer.eos_token_id, tokenizer.bos_token_id, tokenizer.pad_token_id):
        return ()  # CLIP's tokenizer falls back to bytes, and names its end token as the unknown one
    ends = own[0], own[-1]
    start, end = offsets[ends[0]][0], offsets[ends[1]][1]
    words = [_word_at(text, offsets[i][0], start, end) for i in own if ids[i] == unknown]
    return tuple(dict.fromkeys(words))[:UNKNOWN_MAX]


def _word_start(text: str, at: int, start: int, end: int) -> int:
    """Returns where the word begins that holds the character `at`, or the next word if that is a space."""
    while at < end and text[at].isspace():
        at += 1
    while at > start and not text[at - 1].isspace():
        at -= 1
    return at


def _word_at(text: str, at: int, start: int, end: int) -> str:
    words = text[_word_start(text, at, start, end) :].split(maxsplit=1)
    return _shortened(words[0]) if words else ""


def _shortened(text: str) -> str:
    return text if len(text) <= QUOTE_MAX_CHARS else text[:QUOTE_MAX_CHARS].rstrip() + "…"
