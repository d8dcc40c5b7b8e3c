"""Attention over tokens that context parallelism of diffusers has split over ranks.

Each rank has a part of the text ahead of a part of the image; of some models, a part of both as one sequence. Inside
attention, Ulysses exchanges parts of the tokens for parts of the heads, so that a rank has all tokens; in ring
attention a rank's queries attend to the keys of all ranks. Guided attention does both by itself, since it must know
where each prompt's tokens are. It gathers the keys of a ring at once, as diffusers does, and attends to them by one
softmax, which needs no merge.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor

from nag._diffusers import TokenGroups
from nag.attention import AttentionCall
from nag.errors import InvalidParameter, UnsupportedPipeline
from nag.token_layout import TokenLayout

__all__ = ["TokenSplit", "split_tokens", "sum_over"]


def sum_over(group: Any, sums: Tensor) -> Tensor:
    """Adds up what the ranks of a process group have summed over their parts of a token's heads."""
    total = sums.contiguous()
    dist.all_reduce(total, group=group)
    return total


@dataclass(frozen=True, eq=False)
class TokenSplit:
    """Where the tokens of a joint sequence are, text first.

    Attributes:
        ulysses: the process group that exchanges tokens for heads, or None, and
        ring: the one whose queries pass over all keys. A rank's place is counted along `ulysses` first.
        text: how many of the text's tokens each rank has, by its place, and
        image: the same of the image's.

    """

    ulysses: Any
    ring: Any
    text: tuple[int, ...]
    image: tuple[int, ...]

    @classmethod
    def of(cls, ulysses: Any, ring: Any, text: int, image: int, *, as_one: bool = False) -> TokenSplit:
        """Splits these counts of tokens as diffusers does: the first ranks have one more if it is uneven.

        as_one: whether it splits text and image as one sequence, so that the first ranks have the text.
        """
        ranks = _size(ulysses) * _size(ring)

        def parts(count: int) -> tuple[int, ...]:
            return tuple(count // ranks + (rank < count % ranks) for rank in range(ranks))

        if not as_one:
            return cls(ulysses, ring, parts(text), parts(image))
        sizes, left = parts(text + image), text
        of_text = []
        for size in sizes:
            of_text.append(min(size, left))
            left -= of_text[-1]
        return cls(ulysses, ring, tuple(of_text), tuple(size - some for size, some in zip(sizes, of_text, strict=True)))

    @property
    def sizes(self) -> list[int]:
        """How many tokens each rank has, by its place."""
        return [sum(pair) for pair in zip(self.text, self.image, strict=True)]

    @property
    def place(self) -> int:
        """The place of this rank."""
        return _rank(self.ring) * _size(self.ulysses) + _rank(self.ulysses)

    @property
    def text_here(self) -> int:
        """How many of the text's tokens this rank has."""
        return self.text[self.place]

    def part_of_text(self, states: Tensor, dim: int) -> Tensor:
        """Returns this rank's part of what the whole text has along a dimension."""
        return torch.split(states, list(self.text), dim)[self.place]

    def attend(
        self,
        call: AttentionCall,
        layout: TokenLayout,
        attention: Callable[[AttentionCall, TokenLayout, TokenLayout, Callable[[Tensor], Tensor] | None], Tensor],
    ) -> Tensor:
        """Computes the output (B, H, T, D) of this rank's tokens.

        Args:
            call: of this rank's tokens and all heads; its mask, if any, is of keys alone.
            layout: of both prompts in the whole sequence.
            attention: computes the output (B, H', T', D) for some of the heads from a call whose queries and keys have
                the text of both prompts ahead of the image, the layouts of queries and keys, and what adds up sums over
                heads where each rank has a part of them.

        """
        heads, sizes = call.query.shape[1], self.sizes
        counts = call.query.shape[2], call.key.shape[2]
        if counts != (sizes[self.place],) * 2:
            raise UnsupportedPipeline(
                f"context parallelism has {counts[0]} queries and {counts[1]} keys on a rank whose part of text and "
                f"image has {sizes[self.place]} tokens; kept keys and other sequences cannot be guided under it"
            )
        degree = _size(self.ulysses)
        first = _rank(self.ring) * degree
        near = slice(first, first + degree)  # the ranks that this one exchanges tokens with
        query, key, value = (self._with_all_tokens(x, sizes[near]) for x in (call.query, call.key, call.value))
        mask = None if call.attn_mask is None else _gather(call.attn_mask, -1, self.ulysses, sizes[near])
        of_rings = [sum(sizes[start : start + degree]) for start in range(0, len(sizes), degree)]
        key, value = (_gather(x, 2, self.ring, of_rings) for x in (key, value))
        mask = None if mask is None else _gather(mask, -1, self.ring, of_rings)
        whole = replace(
            call,
            query=self._text_first(query, 2, near),
            key=self._text_first(key, 2),
            value=self._text_first(value, 2),
            attn_mask=None if mask is None else self._text_first(mask, -1),
        )
        before = sum(self.text[:first])
        positive, text = max(layout.positive - before, 0), sum(self.text[near])
        positive = min(positive, text)
        queries = replace(layout, positive=positive, negative=text - positive)
        sum_heads = None if self.ulysses is None else functools.partial(sum_over, self.ulysses)
        out = attention(whole, queries, layout, sum_heads)
        return self._with_all_heads(self._by_rank(out, near), sizes[near], heads)

    def _text_first(self, states: Tensor, dim: int, ranks: slice = slice(None)) -> Tensor:
        """Puts the text of all ranks ahead of the image of all; they come rank by rank."""
        counts = [count for pair in zip(self.text[ranks], self.image[ranks], strict=True) for count in pair]
        parts = torch.split(states, counts, dim)
        return torch.cat([*parts[::2], *parts[1::2]], dim)

    def _by_rank(self, states: Tensor, ranks: slice) -> Tensor:
        """Undoes `_text_first` along dimension 2."""
        parts = torch.split(states, [*self.text[ranks], *self.image[ranks]], 2)
        count = len(parts) // 2
        return torch.cat([part for pair in zip(parts[:count], parts[count:], strict=True) for part in pair], 2)

    def _with_all_tokens(self, states: Tensor, sizes: Sequence[int]) -> Tensor:
        """Exchanges (B, H, T, D) of this rank's tokens for (B, H', all T, D) of this rank's heads."""
        if self.ulysses is None:
            return states
        degree = len(sizes)
        states = F.pad(states, (0, 0, 0, 0, 0, -states.shape[1] % degree))  # heads of zeros, which add nothing
        sent = torch.unflatten(states, 1, (degree, -1)).movedim(1, 0).contiguous()
        of_token = sent[0].numel() // sent.shape[3]
        counts = [of_token * size for size in sizes]
        received = sent.new_empty(sum(counts))
        dist.all_to_all_single(
            received, sent.flatten(), counts, [of_token * sent.shape[3]] * degree, group=self.ulysses
        )
        rows, heads, _, channels = sent.shape[1:]
        parts = zip(torch.split(received, counts), sizes, strict=True)
        return torch.cat([part.view(rows, heads, size, channels) for part, size in parts], 2)

    def _with_all_heads(self, states: Tensor, sizes: Sequence[int], heads: int) -> Tensor:
        """Undoes `_with_all_tokens` for `heads` heads."""
        if self.ulysses is None:
            return states
        degree, here = len(sizes), sizes[_rank(self.ulysses)]
        rows, some, _, channels = states.shape
        of_token = rows * some * channels
        sent = torch.cat([part.flatten() for part in torch.split(states, list(sizes), 2)])
        received = sent.new_empty(degree, rows, some, here, channels)
        dist.all_to_all_single(
            received.view(-1), sent, [of_token * here] * degree, [of_token * size for size in sizes], group=self.ulysses
        )
        return received.movedim(0, 1).flatten(1, 2)[:, :heads]


def split_tokens(groups: TokenGroups, layout: TokenLayout, image: int, *, as_one: bool) -> TokenSplit:
    """Returns how diffusers splits a sequence with this layout and this many image tokens, or both `as_one`.

    Raises:
        InvalidParameter: the text does not divide evenly, and diffusers is not set to split it unevenly.

    """
    split = TokenSplit.of(groups.ulysses, groups.ring, layout.text, image, as_one=as_one)
    sizes = split.sizes if as_one else split.text
    if groups.is_even and len(set(sizes)) > 1:
        others = f"prompt's {layout.positive}" + (f" and {image} of the image" if as_one else "")
        raise InvalidParameter(
            "negative_prompt",
            f"has {layout.negative} tokens beside the {others}, together no multiple of the {len(sizes)} ranks; set "
            "`ulysses_anything` or `ring_anything`",
        )
    return split


def _gather(states: Tensor, dim: int, group: Any, sizes: Sequence[int]) -> Tensor:
    """Joins along a dimension what each rank of a group has, whose sizes these are; None is this rank alone."""
    if group is None:
        return states
    dim %= states.ndim
    longest = max(sizes)
    fill = [0, 0] * (states.ndim - 1 - dim) + [0, longest - states.shape[dim]]
    sent = F.pad(states, fill).contiguous()
    if sent.dtype == torch.bool:
        sent = sent.to(torch.uint8)
    received = [torch.empty_like(sent) for _ in sizes]
    dist.all_gather(received, sent, group=group)
    parts = (part.narrow(dim, 0, size) for part, size in zip(received, sizes, strict=True))
    return torch.cat(list(parts), dim).to(states.dtype)


def _size(group: Any) -> int:
    return 1 if group is None else dist.get_world_size(group)


def _rank(group: Any) -> int:
    return 0 if group is None else dist.get_rank(group)
