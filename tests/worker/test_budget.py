from __future__ import annotations

from collections.abc import Callable

import pytest

from app.catalog import Catalog
from app.jobs import Job
from app.settings import Settings
from app.worker.budget import measure
from app.worker.caller import Budgets

Make = Callable[..., Job]


def taking(**seconds: float | None) -> Callable[[int], float | None]:
    return lambda batch: seconds[f"of_{batch}"]


def test_a_batch_grows_while_it_gains() -> None:
    found = measure(taking(of_1=1.0, of_2=1.1, of_4=1.9, of_8=3.7), 8)
    assert (found.pictures, found.why) == (4, "throughput")
    assert found.table() == "1: 1/s, 2: 1.82/s, 4: 2.11/s, 8: 2.16/s"


def test_a_batch_grows_while_memory_suffices() -> None:
    found = measure(taking(of_1=1.0, of_2=1.0, of_4=None), 8)
    assert (found.pictures, found.why) == (2, "memory")
    with pytest.raises(MemoryError):
        measure(taking(of_1=None), 8)


@pytest.mark.parametrize("most", [1, 2, 3, 6])
def test_a_batch_grows_to_the_setting(most: int) -> None:
    found = measure(lambda _: 1.0, most)
    assert (found.pictures, found.why) == (most, "setting")


def test_the_budget_is_of_the_default_size_and_larger_pictures_take_more_of_it(make_job: Make) -> None:
    entry = Catalog.load(Settings()).models["shapes-flux"]
    budgets = Budgets(8)
    job, large, cfg = make_job("a", n=3), make_job("b", width=128, height=96), make_job("c", guidance_scale=2.0)
    assert budgets.of(entry) == 8 * entry.default_cost
    assert [budgets.rows(entry, each) for each in (job, large, cfg)] == [8, 2, 4]
    budgets.lower(entry, large, 1)
    assert [budgets.rows(entry, each) for each in (job, large, cfg)] == [3, 1, 1]
    budgets.lower(entry, job, 5)
    assert budgets.rows(entry, job) == 3
    budgets.measured(entry, 6)
    assert budgets.rows(entry, job) == 6
