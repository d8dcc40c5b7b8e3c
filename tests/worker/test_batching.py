from __future__ import annotations

from collections.abc import Callable

from app.jobs import Guidance, Job
from app.worker.batching import calls, overall_step

Make = Callable[..., Job]


def test_calls_keep_the_order_and_the_bound(make_job: Make) -> None:
    planned = calls([make_job("a", n=2), make_job("b", n=3)], 4)
    assert [[(row.job.id, row.index) for row in rows] for rows in planned] == [
        [("a", 0), ("a", 1), ("b", 0), ("b", 1)],
        [("b", 2)],
    ]


def test_rows_told_apart_share_no_call(make_job: Make) -> None:
    jobs = [
        make_job("a", n=2, guidance_scale=2.0),
        make_job("b", guidance_scale=3.0),
        make_job("c", guidance_scale=2.0),
    ]
    planned = calls(jobs, 2, lambda row: row.request.guidance_scale)
    assert [[row.job.id for row in rows] for rows in planned] == [["a", "a"], ["c"], ["b"]]


def test_what_guides_a_row_is_not_in_the_batch_key(make_job: Make) -> None:
    nag = Guidance(5.0, 2.5, 0.25, 1.0, "red")
    rows = [{"guidance_scale": 2.0, "nag": nag}, {"guidance_scale": 7.5, "negative_prompt": "no", "seed": 1}]
    assert len({make_job("a", **row).request.batch_key for row in rows}) == 1
    for other in ({"guidance_scale": 1.0}, {"width": 128}, {"height": 128}, {"num_inference_steps": 9}):
        assert make_job("b", **(rows[0] | other)).request.batch_key != make_job("a", **rows[0]).request.batch_key


def test_pictures_count_up_from_the_seed(make_job: Make) -> None:
    (rows,) = calls([make_job("a", n=3, seed=2**64 - 2)], 8)
    assert [row.seed for row in rows] == [2**64 - 2, 2**64 - 1, 0]


def test_the_overall_step_never_falls_and_ends_at_the_total() -> None:
    steps = [overall_step(call, 3, step, 4) for call in range(3) for step in range(5)]
    assert steps == sorted(steps)
    assert (steps[0], steps[-1]) == (0, 4)
