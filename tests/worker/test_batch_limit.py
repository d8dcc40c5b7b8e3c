"""The limit of a model's denoiser calls follows how fast they were; the times are made up."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from app.worker.engine.batch_limit import TRIES, TRY_AFTER, BatchLimit

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
    sizes = run_full_calls(make_limit(), 5 + 4 * TRY_AFTER)
    assert sizes[:7] == [1, 2, 2, 4, 4, 8, 8]
    rest = sizes[7:]
    assert set(rest) == {2, 4, 8}
    assert rest.count(8) == TRIES
    assert rest.count(2) == 2 * TRIES


def test_slow_calls_of_a_size_do_not_bound_the_limit_for_good() -> None:
    limit, slow = make_limit(), [4, 4]

    def seconds(images: int) -> float:
        return 1.0 + (30.0 if images in slow and not slow.remove(images) else 0.0)

    assert max(run_full_calls(limit, 20, seconds)[5:]) == 2
    run_full_calls(limit, 3 * TRY_AFTER, seconds)
    assert limit.cost == 16 * COST


def test_a_machine_that_becomes_slower_keeps_its_limit() -> None:
    limit = make_limit()
    run_full_calls(limit, 20, lambda _: 1.0)
    sizes = run_full_calls(limit, 6 * TRY_AFTER, lambda _: 10.0)
    assert sizes.count(16) > 0.9 * len(sizes)


def test_it_falls_where_half_as_many_images_are_as_fast() -> None:
    limit = make_limit()
    run_full_calls(limit, 20, lambda _: 1.0)
    assert limit.cost == 16 * COST
    run_full_calls(limit, 3 * TRY_AFTER, lambda images: images / 4)
    assert run_full_calls(limit, TRY_AFTER, lambda images: images / 4).count(1) >= TRY_AFTER - TRIES


def test_calls_of_other_guidance_are_not_compared() -> None:
    limit = make_limit()
    run_full_calls(limit, 20, lambda _: 1.0, by="plain")
    for _ in range(TRY_AFTER):
        run_full_calls(limit, 1, lambda _: 1.0, by="plain")
        run_full_calls(limit, 1, lambda _: 2.0, by="nag")
    assert limit.cost == 16 * COST


@pytest.mark.parametrize("images_max", [1, 2, 3, 6])
def test_it_grows_to_the_setting_and_no_further(images_max: int) -> None:
    limit = make_limit(images_max)
    sizes = run_full_calls(limit, 3 * TRY_AFTER, lambda _: 1.0)
    assert max(sizes) == images_max
    assert sizes.count(images_max) > 0.8 * len(sizes)


def test_calls_of_other_sizes_count_as_the_nearest() -> None:
    limit = make_limit()
    for images in (1.2, 1.8, 1.9, 4.2, 4.0, 7.5, 7.8, 17.0, 15.0):
        limit.note("nag", int(images * COST), 1.0)
    assert limit.cost == 16 * COST


def test_what_memory_did_not_suffice_for_is_not_tried_again() -> None:
    limit = make_limit()
    run_full_calls(limit, 20, lambda _: 1.0)
    limit.lower(3 * COST)
    limit.lower(5 * COST)
    assert max(run_full_calls(limit, 4 * TRY_AFTER, lambda _: 1.0)) == 3


def test_a_fixed_limit_stays() -> None:
    limit = make_limit(8, is_fixed=True)
    assert set(run_full_calls(limit, 2 * TRY_AFTER)) == {8}
