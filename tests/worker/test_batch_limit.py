"""The limit of a model's denoiser calls follows how fast they were; the times are made up."""

from __future__ import annotations

import random
from collections.abc import Callable

import pytest

from app.worker.engine.batch_limit import CALLS, TRY_AFTER, BatchLimit

COST = 64 * 64
#: Seconds of a call by images: from 4 to 8 the throughput rises by 3 % alone.
SECONDS = {1: 1.0, 2: 1.1, 4: 1.9, 8: 3.7, 16: 7.4}


def make_limit(images_max: int = 16, *, is_fixed: bool = False) -> BatchLimit:
    return BatchLimit(COST, images_max, is_fixed=is_fixed)


def run_full_calls(
    limit: BatchLimit, count: int, seconds: Callable[[int], float] = lambda images: SECONDS[images], by: str = "nag"
) -> list[int]:
    """Notes calls that are as large as the limit allows; returns the images of each."""
    sizes = []
    for _ in range(count):
        sizes.append(int(limit.cost // COST))
        limit.note(by, sizes[-1] * COST, seconds(sizes[-1]))
    return sizes


def test_it_doubles_while_a_call_of_twice_the_images_gains_a_tenth() -> None:
    limit = make_limit()
    assert run_full_calls(limit, 1) == [1]
    sizes = run_full_calls(limit, 4 * 2 * CALLS + 4 * TRY_AFTER)
    assert sizes[: 2 * CALLS] == [2, 1] * CALLS
    assert sizes[2 * CALLS : 4 * CALLS] == [4, 2] * CALLS
    assert sizes[4 * CALLS : 6 * CALLS] == [8, 4] * CALLS
    rest = sizes[6 * CALLS :]
    assert set(rest) == {2, 4, 8}
    assert rest.count(4) > len(rest) - 4 * CALLS


def test_it_goes_on_from_what_a_warm_up_found() -> None:
    limit = make_limit()
    limit.start(2)
    assert run_full_calls(limit, TRY_AFTER) == [2] * TRY_AFTER
    assert run_full_calls(limit, 2 * CALLS) == [4, 2] * CALLS
    assert limit.cost_max == 16 * COST


@pytest.mark.parametrize("seed", range(20))
@pytest.mark.parametrize("start", [1, 16])
def test_it_is_found_on_a_machine_that_others_use(seed: int, start: int) -> None:
    """The machine is up to 2.5 times as slow for a while, and single calls are three times as slow."""
    limit, draw, slowness = make_limit(), random.Random(seed), [1.0]
    limit.start(start)

    def draw_seconds(images: int) -> float:
        if draw.random() < 0.03:
            slowness.append(draw.choice((1.0, 1.6, 2.5)))
        disturbed = 3.0 if draw.random() < 0.05 else 1.0
        return SECONDS[images] * slowness[-1] * disturbed * draw.lognormvariate(0.0, 0.1)

    run_full_calls(limit, 150, draw_seconds)
    sizes = run_full_calls(limit, 450, draw_seconds)
    undisturbed_rate = sum(sizes) / sum(SECONDS[images] for images in sizes)
    assert undisturbed_rate > 0.85 * max(images / seconds for images, seconds in SECONDS.items())


def test_it_falls_where_half_as_many_images_are_as_fast() -> None:
    limit = make_limit()
    limit.start(16)
    run_full_calls(limit, 6 * TRY_AFTER, lambda images: images / 4)
    assert run_full_calls(limit, TRY_AFTER, lambda images: images / 4).count(1) >= TRY_AFTER - CALLS


def test_calls_of_other_guidance_are_not_compared() -> None:
    limit = make_limit()
    limit.start(8)
    run_full_calls(limit, TRY_AFTER)
    for _ in range(CALLS):  # were they compared, 16 images were ten times as fast
        assert int(limit.cost // COST) == 16
        limit.note("plain", 16 * COST, 1.0)
        assert int(limit.cost // COST) == 8
        limit.note("nag", 8 * COST, 5.0)
    assert run_full_calls(limit, 2 * TRY_AFTER, lambda images: float(images)).count(8) > TRY_AFTER


@pytest.mark.parametrize("images_max", [1, 2, 3, 6])
def test_it_grows_to_the_setting_and_no_further(images_max: int) -> None:
    limit = make_limit(images_max)
    run_full_calls(limit, 1 + 3 * 2 * CALLS, lambda _: 1.0)
    sizes = run_full_calls(limit, 4 * TRY_AFTER, lambda _: 1.0)
    assert max(sizes) == images_max
    assert sizes.count(images_max) > 0.8 * len(sizes)


def test_calls_of_other_sizes_count_as_the_nearest() -> None:
    limit = make_limit()
    limit.start(8)
    run_full_calls(limit, TRY_AFTER)
    for images in (17.0, 8.4, 15.0, 7.5, 4.0, 30.0, 8.0):
        limit.note("nag", int(images * COST), 1.0)
    assert run_full_calls(limit, TRY_AFTER) == [16] * TRY_AFTER


def test_what_memory_did_not_suffice_for_is_not_tried_again() -> None:
    limit = make_limit()
    limit.start(16)
    limit.lower(3 * COST)
    limit.lower(5 * COST)
    assert max(run_full_calls(limit, 4 * TRY_AFTER, lambda _: 1.0)) == 3
    assert limit.cost_max == 3 * COST


def test_a_fixed_limit_stays() -> None:
    limit = make_limit(8, is_fixed=True)
    assert set(run_full_calls(limit, 2 * TRY_AFTER)) == {8}
