"""What is denoised together: pure decisions, no tensors and no I/O."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator, Sequence
from dataclasses import dataclass

from app.jobs import Generation, Job

__all__ = ["Row", "calls", "overall_step"]


@dataclass(frozen=True)
class Row:
    """One picture of a job: a row of the denoiser's batch."""

    job: Job
    index: int

    @property
    def request(self) -> Generation:
        return self.job.request

    @property
    def seed(self) -> int:
        """The n pictures of a job use seed, seed + 1, …; within what a generator takes."""
        return (self.request.seed + self.index) % 2**64


def calls(
    jobs: Sequence[Job], most_pictures: int, apart: Callable[[Row], Hashable] = lambda _: None
) -> list[list[Row]]:
    """The jobs' pictures in order, at most so many a pipeline call; rows that `apart` tells apart share none."""
    groups: dict[Hashable, list[Row]] = {}
    for job in jobs:
        for index in range(job.request.n):
            row = Row(job, index)
            groups.setdefault(apart(row), []).append(row)
    return [chunk for rows in groups.values() for chunk in _chunks(rows, most_pictures)]


def overall_step(call: int, calls_total: int, step: int, steps_total: int) -> int:
    """Steps done of `steps_total` as a job's caller sees them, at `step` of pipeline call number `call` (from 0)."""
    return (call * steps_total + step) // calls_total


def _chunks(rows: list[Row], size: int) -> Iterator[list[Row]]:
    for start in range(0, len(rows), size):
        yield rows[start : start + size]
