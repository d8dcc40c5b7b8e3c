"""Kinds of denoiser arguments. A kind states what must be equal in calls that join, and how the values join.

`ARGUMENTS` is the table of the names common to diffusers. A family states in `Family.arguments` what differs.
"""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Callable, Hashable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.weak import WeakTensorKeyDictionary

__all__ = [
    "ARGUMENTS",
    "LAYERS",
    "LISTED",
    "NUMBERS",
    "PADDED",
    "PADDED_LAYERS",
    "REPEATED",
    "ROWS",
    "SHARED",
    "STATE",
    "UNDECLARED",
    "Argument",
    "PaddedText",
    "Rows",
    "once_per_tensor",
]


class Argument:
    """A kind of argument.

    Attributes:
        rule: what must hold of it in calls that join, for error messages.

    """

    rule = "must be equal"

    def key(self, value: Any, rows: int) -> Hashable:
        """Returns what must be equal in two calls that join. rows: how many the call has."""
        raise NotImplementedError

    def join(self, values: Sequence[Any], counts: Sequence[int]) -> Any:  # noqa: ARG002 (for subclasses)
        """Returns the argument of the joined call, from one value per call. counts: rows of each call."""
        return values[0]


def once_per_tensor(function: Callable[[Tensor], Hashable]) -> Callable[[Tensor], Hashable]:
    """Caches the results of a function of a tensor until the tensor is written to or freed.

    Reading a tensor's values waits for the device, and pipelines pass the same tensors at every step.
    """
    known: Any = WeakTensorKeyDictionary()

    @functools.wraps(function)
    def call(tensor: Tensor) -> Hashable:
        version = 0 if tensor.is_inference() else tensor._version
        cached = known.get(tensor)
        if cached is None or cached[0] != version:
            cached = known[tensor] = version, function(tensor)
        answer: Hashable = cached[1]
        return answer

    return call


@once_per_tensor
def _content(tensor: Tensor) -> Hashable:
    data = tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy()
    return tensor.shape, tensor.dtype, hashlib.sha256(data.data).digest()


@once_per_tensor
def _content_of_each_row(tensor: Tensor) -> Hashable:
    is_repeated = bool((tensor == tensor[:1]).all())
    return _content(tensor[0]) if is_repeated else object()


def _comparable(value: Any) -> Hashable:
    """Returns the value if it is compared by content, else an object that equals no other."""
    if isinstance(value, (list, tuple)):
        return tuple(_comparable(entry) for entry in value)
    return value if value is None or isinstance(value, (bool, int, float, str)) else object()


class _UndeclaredArgument(Argument):
    rule = "is not declared by its family, so it must be a plain value that is equal"

    def key(self, value: Any, rows: int) -> Hashable:  # noqa: ARG002 (as every kind)
        return _comparable(value)


class _StateArgument(Argument):
    rule = "holds state of one request between its steps"

    def key(self, value: Any, rows: int) -> Hashable:  # noqa: ARG002 (as every kind)
        return object()


class _SharedArgument(Argument):
    def key(self, value: Any, rows: int) -> Hashable:
        if isinstance(value, (list, tuple)):
            return tuple(self.key(entry, rows) for entry in value)
        return _content(value) if isinstance(value, Tensor) else _comparable(value)


class Rows(Argument):
    """Tensors whose dimension `dim` is the rows, alone or in lists and tuples; one row stands for all of its call."""

    rule = "must have the same shape, dtype and device per row"

    def __init__(self, dim: int = 0) -> None:
        self.dim = dim

    def key(self, value: Any, rows: int) -> Hashable:
        if isinstance(value, (list, tuple)):
            return tuple(self.key(entry, rows) for entry in value)
        if not isinstance(value, Tensor):
            return _comparable(value)
        count = value.shape[self.dim]
        if count != 1 and count % rows:
            return object()
        per_row = count // rows if count > 1 else 1  # a video's frames may be rows of the text
        return (*value.shape[: self.dim], per_row, *value.shape[self.dim + 1 :], value.dtype, value.device)

    def join(self, values: Sequence[Any], counts: Sequence[int]) -> Any:
        first = values[0]
        if isinstance(first, (list, tuple)):
            return type(first)(self.join(column, counts) for column in zip(*values, strict=True))
        if not isinstance(first, Tensor):
            return first
        return torch.cat([self._for_each(*pair) for pair in zip(values, counts, strict=True)], dim=self.dim)

    def _for_each(self, value: Tensor, count: int) -> Tensor:
        if value.shape[self.dim] > 1:
            return value
        return value.expand(*value.shape[: self.dim], count, *value.shape[self.dim + 1 :])


class _NumbersPerRow(Argument):
    """Numbers of each row, such as its timestep; one number may stand for all rows, on any device."""

    rule = "must have the same shape per row"

    def key(self, value: Any, rows: int) -> Hashable:  # noqa: ARG002 (as every kind)
        return tuple(value.shape[1:]) if isinstance(value, Tensor) else ()

    def join(self, values: Sequence[Any], counts: Sequence[int]) -> Any:
        tensors = [torch.as_tensor(value) for value in values]
        device = next((tensor.device for tensor in tensors if tensor.device.type != "cpu"), tensors[0].device)
        rows = [
            tensor.to(device).expand(count, *tensor.shape[1:]) for tensor, count in zip(tensors, counts, strict=True)
        ]
        return torch.cat(rows)


class PaddedText(Rows):
    """Text whose padding a mask marks, or such a mask, padded with zeros; or a list of texts (L, ...).

    Its dimension 0 is the rows, its dimension `tokens` the tokens.
    """

    rule = "must have the same channels, dtype and device"

    def __init__(self, tokens: int = 1) -> None:
        super().__init__()
        self.tokens = tokens

    def key(self, value: Any, rows: int) -> Hashable:
        if isinstance(value, (list, tuple)):
            return frozenset((text.shape[1:], text.dtype, text.device) for text in value)
        return super().key(value.select(self.tokens, 0), rows)

    def join(self, values: Sequence[Any], counts: Sequence[int]) -> Any:
        if isinstance(values[0], (list, tuple)):
            return type(values[0])(text for texts in values for text in texts)
        lengths = [value.shape[self.tokens] for value in values]
        behind = (0, 0) * (values[0].ndim - self.tokens - 1)
        padded = [
            F.pad(value, (*behind, 0, max(lengths) - length)) for value, length in zip(values, lengths, strict=True)
        ]
        return super().join(padded, counts)


class _ListPerRow(Argument):
    """A list with a tensor for each row."""

    rule = "must be tensors of one shape, dtype and device"

    def key(self, value: Any, rows: int) -> Hashable:
        kinds = {(entry.shape, entry.dtype, entry.device) if isinstance(entry, Tensor) else object() for entry in value}
        return next(iter(kinds)) if len(kinds) == 1 and len(value) == rows else object()

    def join(self, values: Sequence[Any], counts: Sequence[int]) -> Any:  # noqa: ARG002 (as every kind)
        return type(values[0])(entry for value in values for entry in value)


class _RepeatedList(_ListPerRow):
    """An entry for each row, all of them equal: models read the first."""

    rule = "must be equal in every row"

    def key(self, value: Any, rows: int) -> Hashable:
        if isinstance(value, Tensor):
            return _content_of_each_row(value) if len(value) == rows else object()
        entries = {_comparable(entry) for entry in value}
        return entries.pop() if len(entries) == 1 and len(value) == rows else object()

    def join(self, values: Sequence[Any], counts: Sequence[int]) -> Any:
        return torch.cat(list(values)) if isinstance(values[0], Tensor) else super().join(values, counts)


#: Dimension 0 is the rows.
ROWS = Rows()
#: Dimension 0 is layers of the text encoder, dimension 1 the rows.
LAYERS = Rows(dim=1)
#: Numbers of each row, or one for all.
NUMBERS = _NumbersPerRow()
#: Text of any length, (B, L, ...), and its mask.
PADDED = PaddedText()
#: Text of any length with layers of the text encoder ahead of its tokens, (B, layers, L, C).
PADDED_LAYERS = PaddedText(tokens=2)
#: A list with a tensor for each row.
LISTED = _ListPerRow()
#: An entry for each row, all equal.
REPEATED = _RepeatedList()
#: Equal in all calls, compared by content.
SHARED = _SharedArgument()
#: Never joined.
STATE = _StateArgument()
#: What no table names: plain values join if they are equal, tensors never.
UNDECLARED = _UndeclaredArgument()

ARGUMENTS: dict[str, Argument] = {
    **dict.fromkeys(
        (
            # The image, video or sound, and images that go with it
            "hidden_states",
            "sample",
            "audio_hidden_states",
            "encoder_hidden_states_image",
            "image_embeds",
            # The prompt
            "encoder_hidden_states",
            "encoder_attention_mask",
            "encoder_hidden_states_2",
            "encoder_attention_mask_2",
            "encoder_hidden_states_t5",
            "attention_mask",
            "pooled_projections",
            "added_cond_kwargs",
            "timestep_cond",
            "class_labels",
            # ControlNet and image adapters
            "down_block_additional_residuals",
            "down_intrablock_additional_residuals",
            "mid_block_additional_residual",
            "controlnet_block_samples",
            "controlnet_single_block_samples",
            "block_controlnet_hidden_states",
            "ip_adapter_image_embeds",
            "ip_hidden_states",
            # Positions
            "video_coords",
            "audio_coords",
        ),
        ROWS,
    ),
    **dict.fromkeys(("timestep", "timestep_r", "guidance"), NUMBERS),
    **dict.fromkeys(("img_ids", "txt_ids", "position_ids", "image_rotary_emb", "ip_adapter_masks"), SHARED),
    **dict.fromkeys(("img_shapes",), REPEATED),
    **dict.fromkeys(("kv_cache", "kv_cache_mode"), STATE),
}
