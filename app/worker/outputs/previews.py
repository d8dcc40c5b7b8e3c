"""Previews: a linear decoder turns the clean latents that a step predicts into small images.

The decoder is fitted to what the model's own autoencoder makes of the same latents: by the trial that warms a model up,
and by every call that previews are asked of. So it needs no numbers of anybody's, costs next to nothing beside a step,
and the autoencoder is not run between two steps.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from types import MethodType
from typing import Any

import numpy as np
import torch

from app.jobs import Generation, Job
from app.worker.protocol import Preview

__all__ = ["Previews", "Sketch", "predicted", "steps_shown"]

SIDE_PX = 256  # of a preview, if the image has the model's default size
RIDGE = 1e-3  # of the latents' own scale: a channel that has told nothing yet counts for nothing
LEARNT_MIN = 4  # images; before, its colours are those of the few it has seen
LEARNT_MAX = 64  # then the decoder stays as it is

Pixels = np.ndarray[Any, np.dtype[np.float32]]


class Sketch:
    """The linear decoder of one model: a cell of latents to `detail` x `detail` pixels. Several threads may use it."""

    def __init__(self, side_px: int) -> None:
        self._side_px = side_px  # of an image of the model's default size
        self._lock = threading.Lock()
        self._learnt = 0
        self._sums: tuple[torch.Tensor, torch.Tensor] | None = None
        self._matrix: torch.Tensor | None = None

    def learn(self, latents: torch.Tensor, pixels: Pixels) -> None:
        """Learns from clean latents and the images (N, H, W, 3) that they were decoded to; nothing from an unknown
        layout.
        """
        height, width = pixels.shape[1:3]
        cells = _cells(latents, height, width)
        if cells is None or self._learnt >= LEARNT_MAX or not np.isfinite(pixels).all():
            return
        rows, columns = cells.shape[1:3]
        detail = self._detail(height // rows)
        inputs = _with_one(cells)  # (N * rows * columns, C + 1)
        seen = torch.from_numpy(_sampled(pixels, rows * detail, columns * detail))
        outputs = _as_cells(seen, rows, columns, detail).double()
        with self._lock:
            sums = (inputs.T @ inputs, inputs.T @ outputs)
            if self._sums is not None and self._sums[1].shape == sums[1].shape:
                sums = (self._sums[0] + sums[0], self._sums[1] + sums[1])
            self._sums = sums
            self._learnt += len(pixels)
            ridge = RIDGE * sums[0].diagonal().mean() * torch.eye(len(sums[0]), dtype=torch.float64)
            self._matrix = torch.linalg.solve(sums[0] + ridge, sums[1]).float()

    def draw(self, latents: torch.Tensor, height: int, width: int) -> np.ndarray[Any, np.dtype[np.uint8]] | None:
        """Returns images (N, h, w, 3), h and w being parts of height and width; None before enough was learnt."""
        cells = _cells(latents, height, width)
        matrix = self._matrix
        if cells is None or matrix is None or self._learnt < LEARNT_MIN or cells.shape[-1] + 1 != len(matrix):
            return None
        count, rows, columns = cells.shape[:3]
        detail = round((matrix.shape[1] // 3) ** 0.5)
        drawn = (_with_one(cells).float() @ matrix).view(count, rows, columns, detail, detail, 3)
        drawn = drawn.permute(0, 1, 3, 2, 4, 5).reshape(count, rows * detail, columns * detail, 3)
        return (drawn.clamp(0, 1) * 255).round().to(torch.uint8).numpy()

    def _detail(self, cell_px: int) -> int:
        return max(1, min(cell_px, cell_px * SIDE_PX // self._side_px))


class Previews:
    """The previews of one image, handed to `show` in the engine's thread. If none are asked for, the sketch learns."""

    def __init__(self, sketch: Sketch, job: Job, index: int, show: Callable[[Preview], object]) -> None:
        self._sketch = sketch
        self._job = job
        self._index = index
        self._show = show
        self._latest: Callable[[], torch.Tensor | None] = lambda: None

    @contextmanager
    def watching(self, scheduler: Any) -> Iterator[None]:
        """While it denoises."""
        with predicted(scheduler) as self._latest:
            yield

    def step_done(self, step: int) -> None:
        """Shows the image as predicted after so many steps, if a preview is due then."""
        request = self._job.request
        latents = self._latest() if step in steps_shown(request) else None
        if latents is None or len(latents) != 1:
            return
        drawn = self._sketch.draw(latents, request.height, request.width)
        if drawn is not None:
            self._show(Preview(self._job.id, self._index, step, drawn[0]))

    def decoded(self, pixels: Pixels) -> None:
        """Learns from what the last step's latents have become, (H, W, 3)."""
        latents = self._latest()
        if self._job.request.task == "inpaint":
            return  # what was decoded is in part the image it started from
        if latents is not None and len(latents) == 1 and pixels.ndim == 3:
            self._sketch.learn(latents, pixels[None])


def steps_shown(request: Generation) -> set[int]:
    """Steps after which a preview is shown: evenly spread, the last one not among them."""
    total, count = request.steps, request.previews
    return {round(total * i / (count + 1)) for i in range(1, count + 1)} & set(range(1, total))


@contextmanager
def predicted(scheduler: Any) -> Iterator[Callable[[], torch.Tensor | None]]:
    """What the last step of this scheduler took the clean latents to be; None if it does not say."""
    step = type(scheduler).step
    latest: list[tuple[Any, Sequence[Any], dict[str, Any]]] = []

    def noting(self: Any, *arguments: Any, **named: Any) -> Any:
        made = step(self, *arguments, **named)
        if self is scheduler:
            latest[:] = [(made, arguments, named)]
        return made

    scheduler.step = MethodType(noting, scheduler)  # a copy of the scheduler, as LTX-2 makes one, steps for itself
    try:
        yield lambda: _clean(scheduler, *latest[0]) if latest else None
    finally:
        del scheduler.step


def _clean(scheduler: Any, made: Any, arguments: Sequence[Any], named: dict[str, Any]) -> torch.Tensor | None:
    if "TCD" in type(scheduler).__name__:  # what it returns in addition to the sample is not clean
        return None
    if isinstance(made, tuple) and len(made) > 1:
        return torch.as_tensor(made[1])
    config = scheduler.config  # which may have entries of the scheduler whose config it was made from
    is_clean = config.get("predict_x0") or "dpmsolver++" in str(config.get("algorithm_type"))
    if is_clean and hasattr(scheduler, "model_outputs"):
        return torch.as_tensor(scheduler.model_outputs[-1])
    if "FlowMatch" not in type(scheduler).__name__ or scheduler.step_index is None:
        return None
    velocity = named["model_output"] if "model_output" in named else arguments[0]
    sample = named["sample"] if "sample" in named else arguments[2]
    return torch.as_tensor(sample.float() - scheduler.sigmas[scheduler.step_index - 1] * velocity.float())


def _cells(latents: torch.Tensor, height: int, width: int) -> torch.Tensor | None:
    """Returns latents as (N, rows, columns, C) in main memory, whatever the layout: a map of channels, or a row of
    packed tokens.
    """
    if latents.ndim == 5 and latents.shape[2] == 1:
        latents = latents[:, :, 0]
    if latents.ndim == 4:
        cells = latents.permute(0, 2, 3, 1)
    elif latents.ndim == 3:
        side = (height * width / latents.shape[1]) ** 0.5
        rows, columns = round(height / side), round(width / side)
        if rows * columns != latents.shape[1]:
            return None
        cells = latents.reshape(len(latents), rows, columns, -1)
    else:
        return None
    rows, columns = cells.shape[1:3]
    if height % rows or width % columns or height // rows != width // columns:
        return None
    return cells.float().cpu()


def _with_one(cells: torch.Tensor) -> torch.Tensor:
    flat = cells.reshape(-1, cells.shape[-1]).double()
    return torch.cat([flat, torch.ones(len(flat), 1, dtype=torch.float64)], dim=1)


def _sampled(pixels: Pixels, height: int, width: int) -> Pixels:
    """Returns the pixel in the middle of each of height x width parts."""
    y = ((np.arange(height) + 0.5) * pixels.shape[1] / height).astype(int)
    x = ((np.arange(width) + 0.5) * pixels.shape[2] / width).astype(int)
    return np.ascontiguousarray(pixels[:, y][:, :, x])


def _as_cells(images: torch.Tensor, rows: int, columns: int, detail: int) -> torch.Tensor:
    """(N, rows * detail, columns * detail, 3) as a line a cell."""
    parts = images.view(len(images), rows, detail, columns, detail, 3).permute(0, 1, 3, 2, 4, 5)
    return parts.reshape(-1, detail * detail * 3)
