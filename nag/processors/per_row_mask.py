"""Joint attention whose rows differ in the order or padding of their text: the role of a token says who sees it."""

from __future__ import annotations

import itertools
from dataclasses import dataclass, field, replace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from nag.attention import AttentionCall
from nag.errors import UnsupportedPipeline
from nag.guided_step import GuidedStep
from nag.intercept import Interception
from nag.processors.guided import GuidedProcessor, Values, guide_heads
from nag.token_layout import TokenLayout

__all__ = [
    "IMAGE",
    "NEGATIVE",
    "NOBODY",
    "POSITIVE",
    "SHARED",
    "RowByRowProcessor",
    "TokenRoleProcessor",
    "TokenRoles",
    "text_behind",
]

#: The image, each prompt, what both prompts see but is not guided (a reference), and padding, which none sees.
IMAGE, POSITIVE, NEGATIVE, SHARED, NOBODY = range(5)


@dataclass(frozen=True, eq=False)
class TokenRoles(TokenLayout):
    """A layout in which every row has its own places.

    Attributes:
        of: the role of each token at the end of the sequence, (B, L); whatever is ahead of them is image.

    """

    of: Tensor = field(default_factory=lambda: torch.empty(0, 0))


def text_behind(positive: Tensor, negative: Tensor) -> TokenRoles:
    """Returns the roles of `[image | positive | negative]`. positive, negative: (B, L), 1 at each prompt's tokens."""
    of = [torch.where(mask.bool(), role, NOBODY) for mask, role in ((positive, POSITIVE), (negative, NEGATIVE))]
    return TokenRoles(positive.shape[1], negative.shape[1], text_last=True, of=torch.cat(of, dim=1))


class TokenRoleProcessor(GuidedProcessor):
    """Makes two attention calls over the whole sequence, with the keys of one prompt and of the image."""

    def should_intercept(self, call: AttentionCall, step: GuidedStep) -> bool:
        assert isinstance(step.layout, TokenRoles)
        return call.query.shape[2] == call.key.shape[2] >= step.layout.of.shape[1]

    def guided_attention(self, call: AttentionCall, step: GuidedStep) -> Tensor:
        assert isinstance(step.layout, TokenRoles)
        of = step.layout.of
        return attend_by_role(call, F.pad(of, (call.query.shape[2] - of.shape[1], 0), value=IMAGE), step)


class RowByRowProcessor(TokenRoleProcessor):
    """Guides processors that call attention row by row, over the text tokens that a mask selects."""

    def run(
        self,
        step: GuidedStep,
        attn: Any,
        hidden_states: Tensor,
        encoder_hidden_states: Tensor,
        attention_mask: Tensor,
        **kwargs: Any,
    ) -> Any:
        assert isinstance(step.layout, TokenRoles)
        of, rows = F.pad(step.layout.of, (hidden_states.shape[1], 0), value=IMAGE), itertools.count()

        def answer(call: AttentionCall) -> Tensor:
            interception.answered = False  # the next row's call is to come
            # A compiler cannot know this of tokens picked by a mask.
            torch._check(call.query.shape[2] == of.shape[1])  # type: ignore[no-untyped-call]
            row = next(rows)
            return attend_by_role(call, of[row : row + 1], _step_of_row(step, row))

        interception = Interception(lambda _: True, answer)
        every = torch.ones_like(step.layout.of, dtype=attention_mask.dtype)
        with interception:
            out = self.delegate(attn, hidden_states, encoder_hidden_states, every, **kwargs)
        if next(rows) != len(hidden_states):
            raise UnsupportedPipeline(
                f"{type(self.delegate).__name__} made other attention calls than one for each row"
            )
        return out


def attend_by_role(call: AttentionCall, roles: Tensor, step: GuidedStep) -> Tensor:
    """Computes the guided output (B, H, T, D) of tokens with these roles (B, T)."""
    z_positive = replace(call, attn_mask=_mask_of(roles, POSITIVE))()
    if step.rows.start == step.rows.stop:
        return z_positive
    guided, role_of_token = call.for_rows(step.rows), roles[:, None, :, None]
    z_negative = replace(guided, attn_mask=_mask_of(roles[step.rows], NEGATIVE))()

    def z_flipped(flip: Values) -> Tensor:
        value = torch.where(role_of_token[step.rows] == NEGATIVE, flip(guided.value), guided.value)
        return replace(guided, value=value, attn_mask=_mask_of(roles[step.rows], POSITIVE, NEGATIVE))()

    image = guide_heads(z_positive, lambda: z_negative, z_flipped, step)
    out = torch.where(role_of_token == IMAGE, image, z_positive)
    out[step.rows] = torch.where(role_of_token[step.rows] == NEGATIVE, z_negative, out[step.rows])
    return out


def _step_of_row(step: GuidedStep, row: int) -> GuidedStep:
    """Returns the step for a call of one row."""
    place = row - step.rows.start
    if not 0 <= place < step.rows.stop - step.rows.start:
        return replace(step, rows=slice(0, 0))
    return replace(step, rows=slice(0, 1), numbers=step.numbers.at(slice(place, place + 1)))


def _mask_of(roles: Tensor, *prompts: int) -> Tensor:
    seen = (roles == IMAGE) | (roles == SHARED)
    for prompt in prompts:
        seen = seen | (roles == prompt)
    return seen[:, None, None, :]
