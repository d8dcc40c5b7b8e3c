"""One pipeline call under guidance, one step of it, and what the caller is told of both."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor

from nag.negative import Negative
from nag.packing import Packing
from nag.params import NAGParams

__all__ = ["Guidance", "Run", "Step"]


@dataclass
class Run:
    """One pipeline call: how its rows are made of prompts, and the negative prompt encoded as it encodes its own."""

    prompts: int
    images_per_prompt: int
    negative: Negative
    in_cfg: bool = False  # whether the pipeline told its encode_prompt that it runs CFG
    used: bool = False  # the denoiser has been called
    guided: bool | None = None  # whether the last conditional denoiser call was; None before the first
    kept_for: dict[int, Any] = field(default_factory=dict)  # denoiser → what the keys its processors keep depend on

    def prompt_of_row(self, count: int) -> Tensor:
        """For `count` values given, one or one per prompt: which of them each row takes."""
        prompts = torch.arange(self.prompts).repeat_interleave(self.images_per_prompt)
        return prompts if count > 1 else torch.zeros_like(prompts)


@dataclass(frozen=True)
class Step:
    """What the attention processors of one denoiser call need. Numbers are (B, 1, 1), a row a picture."""

    scale: Tensor
    tau: Tensor
    alpha: Tensor
    negative: Negative
    rows: slice  # the guided rows of the denoiser's batch
    packing: Packing | None = None  # set where the negative travels in the text sequence
    text_keys: int = 0  # in cross attention: keys that the attention to the text has
    repeats: int = 1  # rows that attention has for each of the denoiser's, one after the other (a video's frames)

    def as_attended(self) -> Step:
        """With rows and numbers as attention has them."""
        if self.repeats == 1:
            return self
        scale, tau, alpha = (each.repeat_interleave(self.repeats, 0) for each in (self.scale, self.tau, self.alpha))
        rows = slice(self.rows.start * self.repeats, self.rows.stop * self.repeats)
        negative = self.negative.at(torch.arange(len(self.negative.embeds)).repeat_interleave(self.repeats))
        return replace(self, scale=scale, tau=tau, alpha=alpha, rows=rows, negative=negative, repeats=1)


@dataclass
class Guidance:
    """What `guide` yields: the numbers in force and, as the pipeline runs, what was really done."""

    params: tuple[NAGParams, ...]
    guided_steps: int = 0  # denoiser calls in which guidance ran
    plain_steps: int = 0  # conditional denoiser calls in which every row was past its end or unguided
