"""The guided step that a denoiser call is in: what hooks and attention processors read inside of it."""

from __future__ import annotations

import threading

from nag.state import GuidedStep

__all__ = ["CurrentStep"]


class CurrentStep:
    """The step in force on one denoiser, for the calling thread; None while nothing is guided there.

    A denoiser call never leaves its thread, so calls in other threads, greenlets and tasks do not see the step.

    Args:
        is_traced: whether parts of the denoiser are compiled. A compiler reads a plain attribute and no thread-local
            one, so calls of several threads must take turns. `Attachment` holds `lock` for a denoiser compiled in
            place; callers of a wrapped one, or of one with compiled blocks, must see to it themselves.

    """

    def __init__(self, *, is_traced: bool) -> None:
        self.is_traced = is_traced
        self.lock = threading.RLock()
        self._shared: GuidedStep | None = None
        self._local = threading.local()

    @property
    def step(self) -> GuidedStep | None:
        """The step, or None."""
        if self.is_traced:
            return self._shared
        return getattr(self._local, "step", None)

    @step.setter
    def step(self, step: GuidedStep | None) -> None:
        if self.is_traced:
            self._shared = step
        else:
            self._local.step = step
