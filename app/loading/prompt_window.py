"""How many tokens of a prompt a pipeline reads."""

from __future__ import annotations

import inspect
import json
import typing
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import transformers

from app.catalog import Model

__all__ = ["prompt_window", "window_problems"]

CLIP_MAX_TOKENS = 77
#: Pipelines that take `max_sequence_length` and read prompts of any length.
READ_WHOLE = ("QwenImageEditPlusPipeline",)


def prompt_window(entry: Model, kind: Any) -> int | None:
    """Tokens of a prompt that pipeline class `kind` reads for this entry, special ones included; None if unknown.

    `max_sequence_length` is that of the main text encoder. Pipelines without it read as much as their tokenizer.
    """
    if kind.__name__ in READ_WHOLE:
        return None
    parameter = inspect.signature(kind.__call__).parameters.get("max_sequence_length")
    if parameter is not None:
        window = entry.call.get("max_sequence_length", parameter.default)
        return window if isinstance(window, int) else None
    config = Path(entry.repository) / "tokenizer" / "tokenizer_config.json"
    if config.is_file():
        return int(json.loads(config.read_text(encoding="utf-8"))["model_max_length"])
    tokenizer = typing.get_type_hints(kind.__init__).get("tokenizer")
    return CLIP_MAX_TOKENS if tokenizer is transformers.CLIPTokenizer else None


def window_problems(entry: Model, kind: Any) -> Iterator[str]:
    window = prompt_window(entry, kind)
    if None not in (entry.prompt_max_tokens, window) and entry.prompt_max_tokens != window:
        yield f"prompt_max_tokens: {kind.__name__} reads {window} tokens here, not {entry.prompt_max_tokens}"
