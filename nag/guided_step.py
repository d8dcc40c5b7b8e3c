"""One guided denoiser call: the guidance of each of its rows, and what its attention processors need of them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from nag.errors import InvalidParameter
from nag.negative import NegativeEmbeds, stack_rows
from nag.params import NAGParams
from nag.text_keys import KeptKeys
from nag.token_layout import TokenLayout
from nag.token_split import TokenSplit

if TYPE_CHECKING:
    from nag.families import Family

__all__ = ["EncodedRowGuidance", "GuidedStep", "RowGuidance", "RowNumbers", "guided_slice", "make_step"]


@dataclass(frozen=True)
class RowGuidance:
    """Guidance of one row of a denoiser call at one step.

    Attributes:
        negative: the encoded negative prompt, one row: embeds (1, L, C).
        scale: s ≥ 1 at this step; the paper's φ is s − 1.
        tau: τ ≥ 1, the largest growth of a token's L1 norm (equation 9).
        alpha: α in [0, 1], the share of the guided output (equation 10).
        method: "nag", "orthogonal" or "vsf", as `NAGParams.method`.

    Raises:
        InvalidParameter: a number out of its range, no method, or not exactly one negative prompt.

    """

    negative: NegativeEmbeds
    scale: float
    tau: float
    alpha: float
    method: str = "nag"

    def __post_init__(self) -> None:
        NAGParams(self.scale, self.tau, self.alpha, method=self.method)
        if len(self.negative.embeds) != 1:
            raise InvalidParameter("negative", f"must hold one prompt, got {len(self.negative.embeds)}")
        self.negative.check("negative")

    @property
    def is_active(self) -> bool:
        """Whether these numbers change anything."""
        return self.scale > 1 and self.alpha > 0


def guided_slice(rows: Sequence[RowGuidance | None]) -> slice:
    """Returns the rows of a call from the first to the last that guidance changes; empty if it changes none."""
    active = [place for place, row in enumerate(rows) if row is not None and row.is_active]
    return slice(active[0], active[-1] + 1) if active else slice(0, 0)


class EncodedRowGuidance(RowGuidance):
    """Row guidance by a negative prompt that the pipeline encoded.

    It is not checked: the mask of an empty prompt may hide all tokens.
    """

    def __post_init__(self) -> None:
        pass


@dataclass(frozen=True)
class RowNumbers:
    """The numbers of the guided rows, (B, 1, 1) each, and which rows another method than NAG guides.

    Attributes:
        orthogonal: True in rows of that method; None if there are none, and
        flipped: the same of value sign flip.
        is_only_flipped: whether all rows are.

    """

    scale: Tensor
    tau: Tensor
    alpha: Tensor
    orthogonal: Tensor | None = None
    flipped: Tensor | None = None
    is_only_flipped: bool = False

    @classmethod
    def of(cls, rows: Sequence[tuple[float, float, float, str]], device: torch.device) -> RowNumbers:
        """Makes tensors of the rows' scale, tau, alpha and method. A row of scale 1, which is Z+ exactly, is NAG's."""

        def column(values: Sequence[float], dtype: torch.dtype) -> Tensor:
            return torch.tensor(values, dtype=dtype, device=device).view(-1, 1, 1)

        methods = [method if scale > 1 else "nag" for scale, _, _, method in rows]
        orthogonal, flipped = (
            column([method == name for method in methods], torch.bool) if name in methods else None
            for name in ("orthogonal", "vsf")
        )
        scale, tau, alpha = (column(values, torch.float32) for values in zip(*(row[:3] for row in rows), strict=True))
        return cls(scale, tau, alpha, orthogonal, flipped, set(methods) == {"vsf"})

    def at(self, index: Tensor | slice) -> RowNumbers:
        """Returns the numbers of the rows that `index` names."""
        orthogonal, flipped = (None if rows is None else rows[index] for rows in (self.orthogonal, self.flipped))
        scale, tau, alpha = self.scale[index], self.tau[index], self.alpha[index]
        return RowNumbers(scale, tau, alpha, orthogonal, flipped, self.is_only_flipped)


@dataclass(frozen=True)
class GuidedStep:
    """What the attention processors of one denoiser call need."""

    numbers: RowNumbers
    negative: NegativeEmbeds
    rows: slice  # the guided rows of the denoiser's batch
    prompts: tuple[NegativeEmbeds, ...]  # of each guided image or video, one prompt; the same object at every step
    layout: TokenLayout | None = None  # set if the negative travels in the text sequence
    text_keys: int = 0  # in cross attention: keys that the attention to the text has
    kept: KeptKeys = field(default_factory=KeptKeys)
    scratch: dict[str, Any] = field(default_factory=dict)  # what hooks of one denoiser call hand to each other
    blocks: frozenset[int] | None = None  # places of the attention modules that guide; None if all do
    guides: bool = True  # whether the attention module at hand is one of them
    rows_per_sample: int = 1  # adjacent rows that attention has for each of the denoiser's (a video's frames)
    split: TokenSplit | None = (
        None  # how context parallelism has split the tokens, if joint attention has a part of them
    )
    sum_heads: Callable[[Tensor], Tensor] | None = None  # where each rank has a part of a token's heads

    @property
    def token_layout(self) -> TokenLayout:
        """The layout, in a call in which the negative travels."""
        assert self.layout is not None
        return self.layout

    @property
    def text_here(self) -> int:
        """Tokens of both prompts that this rank has in joint attention."""
        return self.token_layout.text if self.split is None else self.split.text_here

    def expanded_for_attention(self) -> GuidedStep:
        """Returns the step with rows and numbers as attention has them."""
        if self.rows_per_sample == 1:
            return self
        index = torch.arange(len(self.negative.embeds)).repeat_interleave(self.rows_per_sample)
        numbers = self.numbers.at(index.to(self.numbers.scale.device))
        rows = slice(self.rows.start * self.rows_per_sample, self.rows.stop * self.rows_per_sample)
        return replace(self, numbers=numbers, rows=rows, negative=self.negative.at(index), rows_per_sample=1)


def make_step(
    family: Family, call: dict[str, Any], rows: Sequence[RowGuidance | None], places: frozenset[int] | None
) -> GuidedStep | None:
    """Returns the step of a denoiser call whose rows are guided so; None if guidance changes none of them.

    Raises:
        InvalidParameter: another number of rows than the call's, or negative prompts that cannot share a call.

    """
    embeds, frames = family.embeds(call), family.frames(call)
    if len(rows) != family.row_count(call):
        raise InvalidParameter("rows", f"has {len(rows)} entries for a denoiser call of {family.row_count(call)} rows")
    place = guided_slice(rows)
    # Plain rows in between ride with scale 1, which returns Z+ exactly.
    guided = [row if row is not None and row.is_active else None for row in rows[place]]
    if not guided:
        return None
    stand_in = next(row.negative for row in guided if row is not None)
    prompts = tuple(stand_in if row is None else row.negative for row in guided)
    negative = stack_rows(prompts, has_mask=family.has_mask)
    numbers = RowNumbers.of(
        [
            (row.scale, row.tau, row.alpha, row.method) if row is not None else (1.0, 1.0, 0.0, "nag")
            for row in guided
            for _ in range(frames)
        ],
        embeds.device,
    )
    index = torch.arange(len(guided)).repeat_interleave(frames)
    rows_guided = slice(place.start * frames, place.stop * frames)
    return GuidedStep(numbers, negative.to(embeds).at(index), rows_guided, prompts, blocks=places)
