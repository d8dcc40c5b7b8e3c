"""Joint attention whose text is padded or ordered apart in every row: each token's role says who sees it."""

from __future__ import annotations

import itertools
from dataclasses import dataclass, field, replace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from nag.attention import AttentionCall
from nag.errors import UnsupportedPipeline
from nag.intercept import Interception
from nag.packing import Packing
from nag.processors.guided import GuidedProcessor, guide_heads
from nag.session import Step

__all__ = [
    "IMAGE",
    "NEGATIVE",
    "NOBODY",
    "POSITIVE",
    "SHARED",
    "Roles",
    "RolesAttentionProcessor",
    "RowByRowProcessor",
    "text_behind",
]

#: The image, each prompt, what both prompts see but is not guided (a reference), and padding, which none sees.
IMAGE, POSITIVE, NEGATIVE, SHARED, NOBODY = range(5)


@dataclass(frozen=True, eq=False)
class Roles(Packing):
    """A packing in which every row has its own places.

    Attributes:
        of: the role of each token at the end of the sequence, (B, L); whatever is ahead of them is image.

    """

    of: Tensor = field(default_factory=lambda: torch.empty(0, 0))


def text_behind(positive: Tensor, negative: Tensor) -> Roles:
    """Of `[image | positive | negative]`. positive, negative: (B, L), 1 at each prompt's tokens."""
    of = [torch.where(mask.bool(), role, NOBODY) for mask, role in ((positive, POSITIVE), (negative, NEGATIVE))]
    return Roles(positive.shape[1], negative.shape[1], text_last=True, of=torch.cat(of, dim=1))


class RolesAttentionProcessor(GuidedProcessor):
    """Two attention calls over the whole sequence, each with the keys of one prompt and the image."""

    def wanted(self, call: AttentionCall, step: Step) -> bool:
        assert isinstance(step.packing, Roles)
        return call.query.shape[2] == call.key.shape[2] >= step.packing.of.shape[1]

    def answer(self, call: AttentionCall, step: Step) -> Tensor:
        assert isinstance(step.packing, Roles)
        of = step.packing.of
        return attend_by_role(call, F.pad(of, (call.query.shape[2] - of.shape[1], 0), value=IMAGE), step)


class RowByRowProcessor(RolesAttentionProcessor):
    """Where the processor calls attention once for each row, over those of its text tokens that a mask picks."""

    def run(
        self,
        step: Step,
        attn: Any,
        hidden_states: Tensor,
        encoder_hidden_states: Tensor,
        attention_mask: Tensor,
        **kwargs: Any,
    ) -> Any:
        assert isinstance(step.packing, Roles)
        of, rows = F.pad(step.packing.of, (hidden_states.shape[1], 0), value=IMAGE), itertools.count()

        def answer(call: AttentionCall) -> Tensor:
            interception.answered = False  # the next row's call is to come
            # A compiler cannot know this of tokens picked by a mask.
            torch._check(call.query.shape[2] == of.shape[1])  # type: ignore[no-untyped-call]
            row = next(rows)
            return attend_by_role(call, of[row : row + 1], _step_of_row(step, row))

        interception = Interception(lambda _: True, answer)
        every = torch.ones_like(step.packing.of, dtype=attention_mask.dtype)
        with interception:
            out = self.inner(attn, hidden_states, encoder_hidden_states, every, **kwargs)
        if next(rows) != len(hidden_states):
            raise UnsupportedPipeline(f"{type(self.inner).__name__} made other attention calls than one for each row")
        return out


def attend_by_role(call: AttentionCall, roles: Tensor, step: Step) -> Tensor:
    """The guided output (B, H, T, D) of tokens with these roles (B, T)."""
    z_positive = replace(call, attn_mask=_seen(roles, POSITIVE))()
    if step.rows.start == step.rows.stop:
        return z_positive
    z_negative = replace(call.at(step.rows), attn_mask=_seen(roles[step.rows], NEGATIVE))()
    role_of_token = roles[:, None, :, None]
    out = torch.where(role_of_token == IMAGE, guide_heads(z_positive, z_negative, step), z_positive)
    out[step.rows] = torch.where(role_of_token[step.rows] == NEGATIVE, z_negative, out[step.rows])
    return out


def _step_of_row(step: Step, row: int) -> Step:
    """For a call of that row alone."""
    place = row - step.rows.start
    if not 0 <= place < step.rows.stop - step.rows.start:
        return replace(step, rows=slice(0, 0))
    one = slice(place, place + 1)
    return replace(step, rows=slice(0, 1), scale=step.scale[one], tau=step.tau[one], alpha=step.alpha[one])


def _seen(roles: Tensor, prompt: int) -> Tensor:
    return ((roles == IMAGE) | (roles == SHARED) | (roles == prompt))[:, None, None, :]
