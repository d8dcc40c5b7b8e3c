from __future__ import annotations

from collections.abc import Callable

from app.jobs import Job
from app.worker.batching import calls, overall_step

Make = Callable[..., Job]


def test_calls_keep_the_order_and_the_bound(make_job: Make) -> None:
    planned = calls([make_job("a", n=2), make_job("b", n=3)], 4)
    assert [[(row.job.id, row.index) for row in rows] for rows in planned] == [
        [("a", 0), ("a", 1), ("b", 0), ("b", 1)],
        [("b", 2)],
    ]


def test_pictures_count_up_from_the_seed(make_job: Make) -> None:
    (rows,) = calls([make_job("a", n=3, seed=2**64 - 2)], 8)
    assert [row.seed for row in rows] == [2**64 - 2, 2**64 - 1, 0]


def test_the_overall_step_never_falls_and_ends_at_the_total() -> None:
    steps = [overall_step(call, 3, step, 4) for call in range(3) for step in range(5)]
    assert steps == sorted(steps)
    assert (steps[0], steps[-1]) == (0, 4)
