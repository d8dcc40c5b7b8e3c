"""Calls of a shared module for a group, and what becomes of a group that fails; modules and calls are stand-ins."""

from __future__ import annotations

import time
import weakref
from collections.abc import Callable, Sequence
from types import SimpleNamespace
from typing import Any

import pytest
import torch

import nag
from app.catalog import Model
from app.worker.devices import memory
from app.worker.engine.batch_limit import CALLS, TRY_AFTER, BatchLimit
from app.worker.engine.module_runner import ModuleRunner, OutOfMemory, RetryAloneError
from app.worker.recorder import Event, Recorder
from tests.worker.generate import CPU

COST = 64 * 64
IMAGES_MAX = 8


class Module:
    """Doubles each call's number, unless `check` raises for the numbers of a group."""

    def __init__(self, kind: str = "denoiser") -> None:
        self.kind = kind
        self.groups: list[list[int]] = []
        self.check: Callable[[list[int]], None] = lambda _: None

    def run(self, calls: Sequence[Any]) -> list[int]:
        numbers = [call.number for call in calls]
        self.groups.append(numbers)
        self.check(numbers)
        return [2 * number for number in numbers]

    @property
    def sizes(self) -> list[int]:
        return [len(group) for group in self.groups]


@pytest.fixture
def module() -> Module:
    return Module()


@pytest.fixture
def recorder() -> Recorder:
    return Recorder()


@pytest.fixture
def free_models() -> list[bool]:
    """What each attempt to free models will say, the last one first; False once there is no more."""
    return []


@pytest.fixture
def runner(recorder: Recorder, free_models: list[bool]) -> ModuleRunner:
    def make_limit(entry: Model) -> BatchLimit:
        return BatchLimit(entry.default_cost, IMAGES_MAX, is_fixed=True)

    return ModuleRunner(CPU, recorder, make_limit, lambda: bool(free_models) and free_models.pop())


@pytest.fixture
def make_group(module: Module, entry: Model) -> Callable[..., list[Any]]:
    """`make_group(3)`: calls 0, 1 and 2, a row each."""

    def make(count: int, *, rows: Sequence[Any] = (None,), cfg: bool = False, of: Module = module) -> list[Any]:
        return [
            SimpleNamespace(
                suspended=SimpleNamespace(module=of, number=number, rows=rows),
                model=SimpleNamespace(entry=entry),
                cost=COST * len(rows),
                job=SimpleNamespace(request=SimpleNamespace(cfg=cfg)),
                made=SimpleNamespace(batch_size=0, first_step_at=0.0),
            )
            for number in range(count)
        ]

    return make


def no_more_than(rows: int, error: Callable[[str], Exception] = torch.OutOfMemoryError) -> Callable[[list[int]], None]:
    def check(numbers: list[int]) -> None:
        if len(numbers) > rows:
            raise error("no memory")

    return check


def fails_for(wrong: int, error: Exception) -> Callable[[list[int]], None]:
    def check(numbers: list[int]) -> None:
        if wrong in numbers:
            raise error

    return check


def cpu_says_no_memory(_: str) -> Exception:
    return RuntimeError("DefaultCPUAllocator: not enough memory: you tried to allocate 8000000000000 bytes.")


def test_a_group_shares_one_call(runner: ModuleRunner, module: Module, make_group: Any) -> None:
    group = make_group(3)
    assert runner.run(group) == [0, 2, 4]
    assert module.groups == [[0, 1, 2]]
    assert [call.made.batch_size for call in group] == [3, 3, 3]
    runner.run(group[:1])
    assert [call.made.batch_size for call in group] == [3, 3, 3]  # the most of all its calls


@pytest.mark.parametrize("error", [torch.OutOfMemoryError, MemoryError, cpu_says_no_memory])
def test_out_of_memory_halves_the_group_and_repeats_that_call_alone(
    runner: ModuleRunner, module: Module, make_group: Any, recorder: Recorder, error: Any
) -> None:
    group = make_group(8)
    module.check = no_more_than(4, error)
    assert runner.run(group) == [2 * number for number in range(8)]
    assert module.groups == [[*range(8)], [0, 1, 2, 3], [4, 5, 6, 7]]
    assert (recorder.of(Event.OUT_OF_MEMORY), recorder.of(Event.CALL_RAISED)) == (1, 0)
    assert {call.made.batch_size for call in group} == {4}


def test_out_of_memory_lowers_the_limit_of_its_model_for_good(
    runner: ModuleRunner, module: Module, make_group: Any, entry: Model
) -> None:
    other = entry.model_copy(update={"id": "other"})
    assert runner.limit(entry) == runner.limit(other) == IMAGES_MAX * COST
    module.check = no_more_than(2)
    runner.run(make_group(8))
    assert module.sizes == [8, 4, 2, 2, 4, 2, 2]
    assert (runner.limit(entry), runner.limit(other)) == (2 * COST, IMAGES_MAX * COST)
    module.check = lambda _: None
    runner.run(make_group(8))
    assert runner.limit(entry) == 2 * COST


def test_the_limit_of_each_model_follows_the_times_of_its_denoiser_calls(
    recorder: Recorder, module: Module, make_group: Any, entry: Model
) -> None:
    runner = ModuleRunner(CPU, recorder, lambda entry: BatchLimit(COST, 4, is_fixed=False), lambda: False)
    other = entry.model_copy(update={"id": "other"})
    runner.start_limit(entry, 2)
    assert (runner.limit(entry), runner.limit_max(entry)) == (2 * COST, 4 * COST)
    runner.run(make_group(4, of=Module("decode")))
    assert runner.limit(entry) == 2 * COST
    module.check = lambda numbers: time.sleep(0.02 if len(numbers) > 2 else 0.0)
    sizes = []
    for _ in range(TRY_AFTER + 2 * CALLS):
        sizes.append(runner.limit(entry) // COST)
        runner.run(make_group(sizes[-1]))
    assert sizes == [2] * TRY_AFTER + [4, 2] * CALLS
    assert runner.limit(entry) == 2 * COST  # calls of 4 were far slower
    assert runner.limit(other) == COST  # its first call is of one image
    assert module.sizes == sizes


def test_a_limit_counts_all_rows_of_a_call(runner: ModuleRunner, module: Module, make_group: Any, entry: Model) -> None:
    module.check = no_more_than(1)
    runner.run(make_group(2, rows=(None, None)))
    assert runner.limit(entry) == 2 * COST


def test_a_single_call_without_memory_is_to_be_tried_alone(
    runner: ModuleRunner, module: Module, make_group: Any, entry: Model, recorder: Recorder
) -> None:
    module.check = no_more_than(0)
    assert [type(outcome) for outcome in runner.run(make_group(1))] == [RetryAloneError]
    assert (module.sizes, recorder.of(Event.OUT_OF_MEMORY)) == ([1], 1)
    assert runner.limit(entry) == IMAGES_MAX * COST  # it was no group to be made smaller


def test_alone_it_fails_only_after_all_idle_models_are_gone(
    runner: ModuleRunner, module: Module, make_group: Any, free_models: list[bool]
) -> None:
    module.check = no_more_than(0)
    free_models[:] = [True]
    (outcome,) = runner.run(make_group(1), is_alone=True)
    assert isinstance(outcome, OutOfMemory)
    assert (module.sizes, free_models) == ([1, 1], [])


def test_alone_it_succeeds_once_idle_models_are_gone(
    runner: ModuleRunner, module: Module, make_group: Any, free_models: list[bool]
) -> None:
    free_models[:] = [True]
    module.check = lambda _: fails_for(0, MemoryError())([0] if free_models else [])
    assert runner.run(make_group(1), is_alone=True) == [0]


def test_only_the_call_that_does_not_fit_is_tried_alone(runner: ModuleRunner, module: Module, make_group: Any) -> None:
    module.check = fails_for(2, MemoryError())
    outcomes = runner.run(make_group(4))
    assert [type(outcome) for outcome in outcomes] == [int, int, RetryAloneError, int]
    assert module.groups == [[0, 1, 2, 3], [0, 1], [2, 3], [2], [3]]


@pytest.mark.parametrize("wrong", range(5))
def test_an_exception_is_thrown_into_its_call_alone(
    runner: ModuleRunner, module: Module, make_group: Any, entry: Model, recorder: Recorder, wrong: int
) -> None:
    error = ValueError("of one row")
    module.check = fails_for(wrong, error)
    outcomes = runner.run(make_group(5))
    assert outcomes == [error if number == wrong else 2 * number for number in range(5)]
    failed = [group for group in module.groups if wrong in group]
    assert (recorder.of(Event.CALL_RAISED), recorder.of(Event.OUT_OF_MEMORY)) == (len(failed), 0)
    assert len(module.groups) <= 7  # by halves, not one by one
    assert runner.limit(entry) == IMAGES_MAX * COST


def test_a_group_that_cannot_join_falls_apart_and_is_not_counted(
    runner: ModuleRunner, module: Module, make_group: Any, entry: Model, recorder: Recorder
) -> None:
    def check(numbers: list[int]) -> None:
        if len(numbers) > 1:
            raise nag.CannotJoin("negative", 1, "must have as many tokens")

    module.check = check
    assert runner.run(make_group(3)) == [0, 2, 4]
    assert recorder.counts() == {}
    assert runner.limit(entry) == IMAGES_MAX * COST


def test_what_a_failed_call_held_is_gone_before_the_next_one(
    runner: ModuleRunner, module: Module, make_group: Any
) -> None:
    held: list[weakref.ref[torch.Tensor]] = []

    def check(numbers: list[int]) -> None:
        assert all(tensor() is None for tensor in held)
        tensor = torch.zeros(4)
        held.append(weakref.ref(tensor))
        if len(numbers) > 1:
            raise torch.OutOfMemoryError("no memory")

    module.check = check
    assert runner.run(make_group(4)) == [0, 2, 4, 6]
    assert len(held) == 7


def test_a_device_that_has_failed_for_good_ends_the_run(
    runner: ModuleRunner, module: Module, make_group: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(_: Any) -> None:
        raise RuntimeError("CUDA error: an illegal memory access was encountered")

    monkeypatch.setattr(memory, "free", fail)
    module.check = fails_for(1, ValueError())
    with pytest.raises(RuntimeError, match="illegal memory access"):
        runner.run(make_group(2))
    assert module.sizes == [2]


def test_the_seconds_of_a_call_are_known_after_the_first_of_its_kind(
    runner: ModuleRunner, make_group: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    decoder = Module("decode")
    (step,), (decode,) = make_group(1), make_group(1, of=decoder)
    assert runner.estimate_s(step) == 0
    runner.run([step])
    assert runner.estimate_s(step) > 0
    assert runner.estimate_s(decode) == 0
    wide = make_group(1, rows=(None, None))[0]
    assert runner.estimate_s(wide) == pytest.approx(2 * runner.estimate_s(step))


ACTIVE = SimpleNamespace(is_active=True)
INACTIVE = SimpleNamespace(is_active=False)


@pytest.mark.parametrize(
    ("rows", "cfg", "label"),
    [
        ([None, None], False, "plain"),
        ([INACTIVE, None], False, "plain"),
        ([ACTIVE, ACTIVE], False, "nag"),
        ([ACTIVE, None], False, "mixed"),
        ([None, None], True, "cfg"),
        ([ACTIVE, ACTIVE], True, "nag_cfg"),
        ([None, ACTIVE], True, "mixed_cfg"),
    ],
)
def test_a_step_is_recorded_by_what_guides_it(
    runner: ModuleRunner, make_group: Any, recorder: Recorder, rows: Any, cfg: bool, label: str
) -> None:
    group = [make_group(1, rows=[row], cfg=cfg)[0] for row in rows]
    runner.run(group)
    labels = {"model": "shapes-flux", "guidance": label}
    assert recorder.registry.get_sample_value("nag_step_seconds_count", labels) == 1
    assert recorder.registry.get_sample_value("nag_denoised_pixels_total", labels) == 2 * COST


def test_text_and_image_modules_are_no_steps(runner: ModuleRunner, make_group: Any, recorder: Recorder) -> None:
    group = make_group(2, of=Module("text"))
    assert runner.run(group) == [0, 2]
    assert [call.made.batch_size for call in group] == [0, 0]
    labels = {"model": "shapes-flux", "guidance": "plain"}
    assert recorder.registry.get_sample_value("nag_step_seconds_count", labels) is None
