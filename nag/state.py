"""One pipeline call under guidance, one step of it, and what the caller is told of both."""

from __future__ import annotations

import functools
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor

from nag.negative import NegativeEmbeds
from nag.params import NAGParams
from nag.text_keys import KeptKeys
from nag.token_layout import TokenLayout

__all__ = ["Guidance", "GuidedStep", "PipelineCall"]


@dataclass
class PipelineCall:
    """One pipeline call: how its rows are made of prompts, and the negative prompt encoded as it encodes its own."""

    prompts: int
    images_per_prompt: int
    negative: NegativeEmbeds
    in_cfg: bool = False  # whether the pipeline told its encode_prompt that it runs CFG
    used: bool = False  # the denoiser has been called
    timestep: float = 0.0  # of the last conditional denoiser call, on the scale of training
    guided: bool | None = None  # whether the last conditional denoiser call was; None before the first

    @functools.cached_property
    def negatives(self) -> tuple[NegativeEmbeds, ...]:
        """The negative prompts one by one; their text keys are kept for as long as this call goes on."""
        return tuple(self.negative.at(torch.tensor([place])) for place in range(len(self.negative.embeds)))

    def prompt_of_row(self, count: int) -> Tensor:
        """For `count` values given, one or one per prompt: which of them each row takes."""
        prompts = torch.arange(self.prompts).repeat_interleave(self.images_per_prompt)
        return prompts if count > 1 else torch.zeros_like(prompts)


@dataclass(frozen=True)
class GuidedStep:
    """What the attention processors of one denoiser call need. Numbers are (B, 1, 1), a row a picture."""

    scale: Tensor
    tau: Tensor
    alpha: Tensor
    negative: NegativeEmbeds
    rows: slice  # the guided rows of the denoiser's batch
    prompts: tuple[NegativeEmbeds, ...]  # of each guided image or video, one prompt; the same object at every step
    layout: TokenLayout | None = None  # set where the negative travels in the text sequence
    text_keys: int = 0  # in cross attention: keys that the attention to the text has
    kept: KeptKeys = field(default_factory=KeptKeys)
    scratch: dict[str, Any] = field(default_factory=dict)  # what hooks of one denoiser call hand to each other
    rows_per_sample: int = 1  # adjacent rows that attention has for each of the denoiser's (a video's frames)

    def expanded_for_attention(self) -> GuidedStep:
        """The step with rows and numbers as attention has them."""
        if self.rows_per_sample == 1:
            return self
        scale, tau, alpha = (
            each.repeat_interleave(self.rows_per_sample, 0) for each in (self.scale, self.tau, self.alpha)
        )
        rows = slice(self.rows.start * self.rows_per_sample, self.rows.stop * self.rows_per_sample)
        negative = self.negative.at(torch.arange(len(self.negative.embeds)).repeat_interleave(self.rows_per_sample))
        return replace(self, scale=scale, tau=tau, alpha=alpha, rows=rows, negative=negative, rows_per_sample=1)


@dataclass
class Guidance:
    """What `guide` yields: the numbers in force and, as the pipeline runs, what was really done."""

    params: tuple[NAGParams, ...]
    guided_steps: int = 0  # steps in which guidance ran
    plain_steps: int = 0  # steps in which every row was past its end or unguided
