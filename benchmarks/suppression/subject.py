"""An embedded model as the study runs it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from app.catalog import Catalog
from app.loading.pipeline import load
from app.settings import Settings
from benchmarks.suppression.methods import Method, guiding
from benchmarks.suppression.pairs import Pair
from training.shapes.judge import Reading, read
from training.shapes.track import read_clips

__all__ = ["Subject"]

FIRST_SEED = 10_000
SLACK = 1e-3  # less than the timesteps of any two steps are apart, as a share of all


@dataclass(frozen=True)
class Subject:
    """A pipeline, how it is called, and who judges what it makes."""

    name: str
    pipe: Any
    steps: int
    call: dict[str, Any]
    cfg: str
    judge: Callable[[Any], Iterator[Reading]]
    batch: int

    @classmethod
    def load(cls, name: str) -> Subject:
        """Returns an embedded model by its name in the catalog. Raises KeyError for another."""
        entry = Catalog.load(Settings()).models[name]
        call = {"width": entry.width.default, "height": entry.height.default, **entry.call}
        if entry.num_frames is not None:
            call["num_frames"] = entry.num_frames.default
        if entry.embedded_guidance is not None:
            call["guidance_scale"] = entry.embedded_guidance
        clips = entry.kind == "video"
        return cls(
            name,
            load(entry, torch.device("cpu")),
            entry.num_inference_steps.default,
            call,
            entry.cfg,
            read_clips if clips else read,
            8 if clips else 32,
        )

    @property
    def clips(self) -> bool:
        return self.judge is read_clips

    def make(self, asked: Sequence[Pair], method: Method, steps: int) -> Iterator[NDArray[np.uint8]]:
        """8-bit images or clips, batch by batch; the one at place i depends on seed FIRST_SEED + i alone."""
        if method.first is not None:
            method = replace(method, end=self.end(method.first, steps))
        for start in range(0, len(asked), self.batch):
            some = asked[start : start + self.batch]
            prompts, negatives = [str(request.prompt) for request in some], [str(request.negative) for request in some]
            call: dict[str, Any] = {self.cfg: 1.0, **self.call}
            if method.name == "CFG":
                call |= {self.cfg: method.scale, "negative_prompt": negatives}
            generators = [torch.Generator().manual_seed(FIRST_SEED + start + i) for i in range(len(some))]
            with guiding(self.pipe, method, negatives):
                made = self.pipe(prompts, num_inference_steps=steps, generator=generators, output_type="np", **call)[0]
            yield (np.asarray(made) * 255).round().astype(np.uint8)

    def end(self, first: float, steps: int) -> float:
        """Returns the θ that guides this share of the steps, one at least: where they lie is the scheduler's to say."""
        self.pipe("", num_inference_steps=steps, output_type="latent", **{self.cfg: 1.0, **self.call})
        timesteps: list[float] = self.pipe.scheduler.timesteps.tolist()
        last = timesteps[max(1, round(first * len(timesteps))) - 1]
        total: int = self.pipe.scheduler.config.num_train_timesteps
        return min(1.0, 1 - last / total + SLACK)
