"""The guided step of the denoiser call under way, which hooks and attention processors read."""

from __future__ import annotations

import threading
from dataclasses import replace

import torch
from torch import Tensor

from nag.guided_step import GuidedStep

__all__ = ["CurrentStep"]


class CurrentStep:
    """The step in force on one denoiser, for the calling thread; None while nothing is guided there.

    A denoiser call never leaves its thread, so calls in other threads, greenlets and tasks do not see the step.

    Args:
        is_traced: whether the denoiser or parts of it are compiled. A compiler reads a plain attribute and no
            thread-local one, so calls of several threads take turns: `Attachment` holds `lock` during each call.

    """

    def __init__(self, *, is_traced: bool) -> None:
        self.is_traced = is_traced
        self.lock = threading.RLock()
        self._shared: GuidedStep | None = None
        self._traced: tuple[GuidedStep, Tensor] | None = None  # the same as a compiler reads it
        self._local = threading.local()

    @property
    def step(self) -> GuidedStep | None:
        """The step, or None."""
        if not self.is_traced:
            return getattr(self._local, "step", None)
        if not torch.compiler.is_compiling():
            return self._shared
        return None if self._traced is None else _with_counts(*self._traced)

    @step.setter
    def step(self, step: GuidedStep | None) -> None:
        if not self.is_traced:
            self._local.step = step
            return
        self._shared = step
        self._traced = None if step is None else (_without_counts(step), _counts(step))


def _counts(step: GuidedStep) -> Tensor:
    """Returns the step's numbers of rows and tokens as the shape of an empty tensor.

    A compiler makes a graph for each value of an integer that it finds on a module, and one for all sizes of a tensor.
    """
    layout = step.layout
    tokens = (0, 0, 0) if layout is None else (layout.positive, layout.negative, layout.shared)
    return torch.empty(step.rows.start, step.rows.stop, step.text_keys, *tokens, 0)


def _without_counts(step: GuidedStep) -> GuidedStep:
    layout = None if step.layout is None else replace(step.layout, positive=0, negative=0, shared=0)
    return replace(step, rows=slice(None), prompts=(), text_keys=0, layout=layout)


def _with_counts(step: GuidedStep, counts: Tensor) -> GuidedStep:
    start, stop, text_keys, positive, negative, shared, _ = counts.shape
    layout = step.layout
    if layout is not None:
        layout = replace(layout, positive=positive, negative=negative, shared=shared)
    step = replace(step, text_keys=text_keys, layout=layout)
    object.__setattr__(step, "rows", slice(start, stop))  # of a slice in a constructor it would take the numbers
    return step
