"""How many pictures to denoise together: measured, for a larger batch is not always a faster one."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

__all__ = ["Budget", "measure"]

GAIN = 1.1  # pictures a second, to be worth twice the batch: the wait of the first in it doubles


@dataclass(frozen=True)
class Budget:
    """The most pictures of the model's default size a call, why no more, and pictures a second by batch size."""

    pictures: int
    why: Literal["throughput", "memory", "setting"]
    pictures_per_s: dict[int, float]

    def table(self) -> str:
        """`1: 12.5/s, 2: 20.1/s`, for the log."""
        return ", ".join(f"{batch}: {rate:.3g}/s" for batch, rate in self.pictures_per_s.items())


def measure(run_s: Callable[[int], float | None], most: int) -> Budget:
    """Batches of 1, 2, 4, … up to `most` pictures, until twice the batch gains too little.

    `run_s(batch)` is the seconds it took, or None where memory did not suffice. Raises MemoryError where one picture
    does not fit.
    """
    rates: dict[int, float] = {}
    best, size = 0, 1
    while best < most:
        seconds = run_s(size)
        if seconds is None:
            if best == 0:
                raise MemoryError("one picture does not fit into memory")
            return Budget(best, "memory", rates)
        rates[size] = size / seconds
        if best and rates[size] < GAIN * rates[best]:
            return Budget(best, "throughput", rates)
        best, size = size, min(2 * size, most)
    return Budget(best, "setting", rates)
