"""The methods that are compared, each a way to run one pipeline call."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, fields
from typing import Any
from unittest.mock import patch

import nag
from benchmarks.suppression import rules
from benchmarks.suppression.interval import ending
from benchmarks.suppression.rules import Rule
from nag.processors import guided

__all__ = ["FAMILIES", "NAG", "NONE", "Method", "guiding"]


@dataclass(frozen=True)
class Method:
    """A method and its numbers; those absent are the model family's defaults."""

    name: str
    scale: float | None = None
    alpha: float | None = None
    tau: float | None = None
    first: float | None = None  # share of the steps that are guided
    end: float | None = None  # the same as θ, which follows from a model's timesteps
    scale_decay: float | None = None
    start: float | None = None
    blocks: range | None = None
    reference: bool = False  # the authors' layout of Flux.1

    @property
    def label(self) -> str:
        numbers = {"": self.scale, "α ": self.alpha, "τ ": self.tau, "θ ": self.end, "start ": self.start}
        known = [f"{name}{value:g}" for name, value in numbers.items() if value is not None]
        decayed = [] if self.scale_decay is None else ["decayed"]
        blocks = [] if self.blocks is None else [f"blocks {self.blocks.start} to {self.blocks.stop - 1}"]
        first = [] if self.first is None else [f"first {self.first:.0%}"]
        return " ".join([self.name, *known, *decayed, *blocks, *first])

    @property
    def options(self) -> dict[str, Any]:
        """Arguments of `nag.guide`; those absent are left to the model family."""
        names = (field.name for field in fields(nag.NAGParams) if field.name != "method")
        options = {name: getattr(self, name) for name in (*names, "blocks")}
        options["method"] = {"NAG, orthogonal": "orthogonal", "VSF": "vsf"}.get(self.name)
        return {name: value for name, value in options.items() if value is not None}


NONE, NAG = Method("none"), Method("NAG")
_RULES: dict[str, Rule] = {
    "NASA": rules.nasa,
    "NAG without normalization": rules.without_normalization,
    "NAG with L2": rules.l2_norm,
    "NAG, 10 % clipped": rules.clip_rate(0.1),
    "NAG, 50 % clipped": rules.clip_rate(0.5),
}

#: Every setting tried. The scale of CFG is its own; NASA's and VSF's strength is φ, given as s = 1 + φ.
FAMILIES: dict[str, Sequence[Method]] = {
    "none": [NONE],
    "CFG": [Method("CFG", scale) for scale in (1.5, 2.0, 3.0, 5.0)],
    "CFG, first half": [Method("CFG", scale, first=0.5) for scale in (2.0, 3.0, 5.0)],
    "CFG, first ¾": [Method("CFG", scale, first=0.75) for scale in (2.0, 3.0, 5.0)],
    "NASA": [Method("NASA", scale) for scale in (1.1, 1.25, 1.5, 2.0)],
    "VSF": [Method("VSF", scale) for scale in (1.5, 2.0, 3.0, 5.0)],
    "NAG": [Method("NAG", 3.0), NAG, *(Method("NAG", scale) for scale in (9.0, 15.0))],
    "NAG, α 0.5": [Method("NAG", scale, 0.5) for scale in (3.0, 5.0, 9.0, 15.0)],
    "NAG, first half": [Method("NAG", scale, first=0.5) for scale in (5.0, 9.0, 15.0)],
    "NAG, first ¾": [Method("NAG", scale, first=0.75) for scale in (3.0, 5.0, 9.0)],
    "NAG, α 0.5, first half": [Method("NAG", scale, 0.5, first=0.5) for scale in (3.0, 5.0, 7.0, 9.0)],
    "NAG, α 0.5, first ¾": [Method("NAG", scale, 0.5, first=0.75) for scale in (3.0, 5.0, 9.0)],
    "NAG, decayed": [Method("NAG", scale, end=0.5, scale_decay=1.0) for scale in (5.0, 9.0, 15.0)],
    "NAG, α 0.5, decayed": [Method("NAG", scale, 0.5, end=0.5, scale_decay=1.0) for scale in (3.0, 5.0, 6.0, 9.0)],
    "NAG without normalization": [Method("NAG without normalization", scale) for scale in (3.0, 5.0, 9.0)],
    "NAG without normalization, first half": [
        Method("NAG without normalization", scale, first=0.5) for scale in (5.0, 9.0, 15.0)
    ],
    "NAG without normalization, first ¾": [
        Method("NAG without normalization", scale, first=0.75) for scale in (5.0, 9.0)
    ],
    "NAG without refinement": [Method("NAG without refinement", scale, 1.0) for scale in (1.5, 2.0, 3.0, 5.0)],
    "NAG without refinement, first half": [
        Method("NAG without refinement", scale, 1.0, first=0.5) for scale in (2.0, 3.0, 5.0)
    ],
    "NAG with L2": [Method("NAG with L2", scale) for scale in (5.0, 9.0)],
    "NAG, orthogonal": [Method("NAG, orthogonal", scale) for scale in (3.0, 5.0, 9.0, 15.0)],
    "NAG, orthogonal, first half": [Method("NAG, orthogonal", scale, first=0.5) for scale in (5.0, 9.0, 15.0)],
    "NAG, 10 % clipped": [Method("NAG, 10 % clipped")],
    "NAG, 50 % clipped": [Method("NAG, 50 % clipped")],
}


@contextmanager
def guiding(pipe: Any, method: Method, negatives: Sequence[str]) -> Iterator[None]:
    """Guidance in the attention of `pipe` for rows with these negative prompts; CFG is the pipeline's own."""
    if method.name == "CFG" and method.end is not None:
        denoiser = pipe.unet if hasattr(pipe, "unet") else pipe.transformer
        with ending(denoiser, method.end, len(negatives)):
            yield
        return
    if method.name in ("none", "CFG"):
        yield
        return
    with _standing_in(method), nag.guide(pipe, list(negatives), reference=method.reference, **method.options):
        yield


@contextmanager
def _standing_in(method: Method) -> Iterator[None]:
    rule = _RULES.get(method.name)
    if rule is None:
        yield
        return
    # Without `sum_heads`: the model runs on one device.
    with patch.object(guided, "normalized_attention_guidance", lambda *args, **_: rule(*args)):
        yield
