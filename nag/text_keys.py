"""Text keys of negative prompts, kept from step to step in cross attention whose text is the same at every step.

They are kept per prompt, so that rows of several requests come and go: a row's keys are computed in the first call that
it is in, and gathered in those that follow, whichever rows share the call by then.
"""

from __future__ import annotations

from collections.abc import MutableMapping, Sequence
from dataclasses import dataclass, field
from weakref import WeakKeyDictionary

import torch
import torch.nn.functional as F
from torch import Tensor

from nag.negative import NegativeEmbeds

__all__ = ["KeptKeys", "TextKeyCache"]

#: Keys and values (B, H, L, D) and the mask (broadcastable to (B, H, T, L), boolean or added to the logits) or None.
Keys = tuple[Tensor, Tensor, Tensor | None]


@dataclass
class KeptKeys:
    """The negative's keys in one denoiser call, as many rows as its guided attention has.

    Attributes:
        made_from: what they depend on beside the prompts: the denoiser's weights and processors.
        prompts: `id` of each guided row's negative prompt.
        copies: adjacent rows that attention has for each of them (a video's frames), which have the same keys.
        by_attention: by the place of the attention module in the denoiser.

    """

    made_from: object = None
    prompts: tuple[int, ...] = ()
    copies: int = 1
    by_attention: dict[int, Keys] = field(default_factory=dict)


@dataclass(frozen=True)
class _Place:
    """The place of one prompt's keys: a row of the keys of a call, with padding at its end."""

    kept: KeptKeys
    row: int
    padding: int

    def keys(self, attention: int) -> Keys:
        key, value, mask = self.kept.by_attention[attention]
        row, end = slice(self.row, self.row + 1), key.shape[2] - self.padding
        if mask is not None:
            mask = (mask[row] if len(mask) > 1 else mask)[..., :end]
        return key[row, :, :end], value[row, :, :end], mask


class TextKeyCache:
    """The kept keys of one denoiser, for as long as their prompts live and its weights stay as they are."""

    def __init__(self) -> None:
        self._made_from: object = None
        self._places: MutableMapping[NegativeEmbeds, _Place] = WeakKeyDictionary()

    def gather(self, prompts: Sequence[NegativeEmbeds], copies: int, made_from: object) -> KeptKeys:
        """Returns the keys of a call's guided rows; without any if those of a row are yet to be computed."""
        if self._made_from != made_from:
            self._made_from, self._places = made_from, WeakKeyDictionary()
        entries = [self._places.get(prompt) for prompt in prompts]
        places = [place for place in entries if place is not None]
        kept = KeptKeys(self._made_from, tuple(map(id, prompts)), copies)
        if len(places) < len(prompts):
            return kept
        last = places[0].kept
        if (last.prompts, last.copies) == (kept.prompts, copies) and all(place.kept is last for place in places):
            return last
        for attention in last.by_attention:
            kept.by_attention[attention] = _join_keys([place.keys(attention) for place in places], copies)
        self.keep(prompts, kept)
        return kept

    def keep(self, prompts: Sequence[NegativeEmbeds], kept: KeptKeys) -> None:
        """Keeps the keys that a call has computed or gathered for its rows."""
        if kept.made_from is not self._made_from:
            return
        longest = max(prompt.embeds.shape[1] for prompt in prompts)
        # A plain row between guided ones bears the prompt of the first of them. The first row's keys are kept, for the
        # plain row's may be made by other adapters.
        for row, prompt in reversed([*enumerate(prompts)]):
            self._places[prompt] = _Place(kept, row * kept.copies, longest - prompt.embeds.shape[1])


def _join_keys(rows: Sequence[Keys], copies: int) -> Keys:
    """Joins keys of one row each to those of one call, padded under a mask if they differ in length."""
    keys, values, masks = zip(*rows, strict=True)
    length = max(key.shape[2] for key in keys)

    def gather(tensors: Sequence[Tensor]) -> Tensor:
        padded = [F.pad(tensor, (0, 0, 0, length - tensor.shape[2])) for tensor in tensors]
        return torch.cat(padded).repeat_interleave(copies, 0)

    if any(mask is not None for mask in masks) or any(key.shape[2] < length for key in keys):
        like = next((mask for mask in masks if mask is not None), keys[0].new_ones(1, 1, 1, 1, dtype=torch.bool))
        padded = [_mask(mask, key.shape[2], length, like) for key, mask in zip(keys, masks, strict=True)]
        return gather(keys), gather(values), torch.cat(padded).repeat_interleave(copies, 0)
    return gather(keys), gather(values), None


def _mask(mask: Tensor | None, count: int, length: int, like: Tensor) -> Tensor:
    """Returns a mask (1, ..., length) that extends the one of the first `count` tokens and hides the others."""
    seen, hidden = (True, False) if like.dtype == torch.bool else (0.0, -torch.inf)
    if mask is None:
        mask = like.new_full((1, *like.shape[1:-1], count), seen)
    return F.pad(mask, (0, length - count), value=hidden)
