"""The base of guiding processors, which wrap the original processor and run it unchanged if nothing is guided."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import replace
from typing import Any, Self

import torch
from diffusers.models.attention_dispatch import AttentionBackendName
from torch import Tensor

from nag._diffusers import (
    active_backend,
    processor_backend,
    processor_parallelism,
    set_processor_backend,
    set_processor_parallelism,
)
from nag.attention import AttentionCall
from nag.current_step import CurrentStep
from nag.errors import UnsupportedPipeline
from nag.formula import flip_sign, normalized_attention_guidance, orthogonalize
from nag.guided_step import GuidedStep
from nag.intercept import Interception

__all__ = ["GuidedProcessor", "Values", "guide_heads"]

NATIVE = AttentionBackendName.NATIVE
#: Changes values (B, H, L, D).
Values = Callable[[Tensor], Tensor]


class GuidedProcessor:
    """Wraps the original processor of an attention module, and replaces the attention call inside it.

    `fallback` runs the guided steps if the original computes the same attention by a kernel that cannot be intercepted.
    A backend chosen on the module stays with the original, and computes the guided attention too.
    """

    attention_calls = 1  # that make up one attention

    def __new__(cls, current: CurrentStep, original: Any, *args: Any, **kwargs: Any) -> Self:  # noqa: ARG004
        kinds: Any = (cls, type(original))
        subclass: Self = super().__new__(_copy_signature(*kinds))
        return subclass

    def __init__(self, current: CurrentStep, original: Any, fallback: Any = None) -> None:
        self.current = current
        self.place = 0  # of the attention module among those of its denoiser that are guided
        self.original = original
        self.delegate = original if fallback is None else fallback

    def __call__(self, attn: Any, *args: Any, **kwargs: Any) -> Any:
        step = self.current.step
        if step is None:
            return self.original(attn, *args, **kwargs)
        if step.blocks is not None and self.place not in step.blocks:
            step = replace(step, guides=False)
        return self.run(step, attn, *args, **kwargs)

    def run(self, step: GuidedStep, attn: Any, *args: Any, **kwargs: Any) -> Any:
        """Runs the original processor with its attention guided; families with other arguments override this."""
        original: Any = self.original
        chosen, parallelism = processor_backend(original), processor_parallelism(original)
        backend = _choose_backend(chosen)
        interception = Interception(
            lambda call: self.should_intercept(call, step),
            lambda call: self.guided_attention(call if backend is None else replace(call, backend=backend), step),
            self.attention_calls,
        )
        if chosen is not None or backend is not None:
            set_processor_backend(original, NATIVE)  # the one that can be answered; put back below
        if parallelism is not None:
            set_processor_parallelism(original, None)  # tokens are exchanged by `TokenSplit` alone
        try:
            with interception:
                out = self.delegate(attn, *args, **kwargs)
        finally:
            if chosen is not None or backend is not None:
                set_processor_backend(original, chosen)
            if parallelism is not None:
                set_processor_parallelism(original, parallelism)
        if not interception.answered:
            raise UnsupportedPipeline(
                f"{type(self.delegate).__name__} never called scaled_dot_product_attention, so NAG cannot guide it"
            )
        return out

    def should_intercept(self, call: AttentionCall, step: GuidedStep) -> bool:
        """Whether this is the attention to the prompt; a processor may make several calls."""
        raise NotImplementedError

    def guided_attention(self, call: AttentionCall, step: GuidedStep) -> Tensor:
        """Computes the guided output (B, H, T, D)."""
        raise NotImplementedError


@functools.cache
def _copy_signature(kind: Any, original: Any) -> Any:
    """Returns `kind` with the call signature of `original`: attention modules pass on only arguments it names."""

    @functools.wraps(original.__call__)
    def call(self: Any, attn: Any, *args: Any, **kwargs: Any) -> Any:
        return kind.__call__(self, attn, *args, **kwargs)

    return type(kind.__name__, (kind,), {"__call__": call, "__module__": kind.__module__})


def guide_heads(
    z_positive: Tensor, z_negative: Callable[[], Tensor], z_flipped: Callable[[Values], Tensor], step: GuidedStep
) -> Tensor:
    """Guides the step's rows of Z+ by their methods; other rows stay, and all do if a block does not guide.

    Args:
        z_positive: Z+ of every row, (B, H, T, D).
        z_negative: computes Z− of the guided rows alone, if a row's method needs it.
        z_flipped: computes, if a row's method needs it, the guided rows' attention to both prompts at once, with the
            negative prompt's values (B, H, L, D) changed by the function that it is given.
        step: whose rows, numbers and methods they are.

    """
    if not step.guides:
        return z_positive
    rows, numbers = step.rows, step.numbers
    if numbers.flipped is not None:
        z = z_flipped(functools.partial(flip_sign, scale=numbers.scale))
        if not numbers.is_only_flipped:
            z = torch.where(numbers.flipped[..., None], z, _apply_formula(z_positive[rows], z_negative(), step))
    else:
        z = _apply_formula(z_positive[rows], z_negative(), step)
    if len(z) == len(z_positive):
        return z
    return torch.cat([z_positive[: rows.start], z, z_positive[rows.stop :]])


def _apply_formula(z_positive: Tensor, z_negative: Tensor, step: GuidedStep) -> Tensor:
    """Applies equations 7 to 10 over all heads of a token together, (B, H, T, D)."""
    numbers, sum_heads = step.numbers, step.sum_heads
    plus, minus = (z.transpose(1, 2).flatten(2) for z in (z_positive, z_negative))
    if numbers.orthogonal is not None:
        minus = torch.where(numbers.orthogonal, orthogonalize(plus, minus, sum_heads=sum_heads), minus)
    guided = normalized_attention_guidance(plus, minus, numbers.scale, numbers.tau, numbers.alpha, sum_heads=sum_heads)
    return guided.reshape(*guided.shape[:2], *z_positive.shape[1::2]).transpose(1, 2)


def _choose_backend(on_module: Any) -> Any:
    """Returns the backend to compute with: the module's, else the process-wide one; None for torch's own."""
    backend = on_module if on_module is not None else active_backend()
    return None if on_module is None and backend == NATIVE else backend
