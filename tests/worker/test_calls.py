"""Coroutines that are suspended where they call a shared module."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from contextvars import ContextVar
from typing import Any

import pytest
from torch import nn

from app.worker.engine.calls import Coroutine, suspend_calls, suspend_method

VALUE: ContextVar[str] = ContextVar("value", default="unset")


class Doubler(nn.Module):
    def forward(self, number: int) -> int:
        return 2 * number

    def half(self, number: int) -> float:  # type: ignore[override]
        return number / 2


@pytest.fixture
def module() -> Doubler:
    return Doubler()


@pytest.fixture
def inner(module: Doubler) -> Iterator[Callable[..., Any]]:
    """The module's own call; until the test ends, a call from a coroutine suspends that."""
    with ExitStack() as stack:
        yield suspend_calls(module, lambda args, kwargs: ("double", args, kwargs), stack)


def added_up(module: nn.Module, *numbers: int) -> Callable[[], int]:
    return lambda: sum(module(number) for number in numbers)


def run(coroutine: Coroutine) -> None:
    """Resumes it to its end with what the module would return."""
    while not coroutine.has_ended:
        coroutine.resume(2 * coroutine.suspended[1][0])


def test_a_call_suspends_with_its_arguments_and_continues_with_the_result(module: Doubler, inner: Any) -> None:
    coroutine = Coroutine(lambda: module(3, scale=1) + 1)
    assert (coroutine.suspended, coroutine.has_ended) == (None, False)
    coroutine.start()
    assert coroutine.suspended == ("double", (3,), {"scale": 1})
    assert not coroutine.has_ended
    coroutine.resume(10)
    assert (coroutine.has_ended, coroutine.result, coroutine.error, coroutine.suspended) == (True, 11, None, None)


def test_calls_take_turns_and_end_in_any_order(module: Doubler, inner: Any) -> None:
    long, short = Coroutine(added_up(module, 1, 2, 3)), Coroutine(added_up(module, 10))
    long.start()
    short.start()
    assert [coroutine.suspended[1] for coroutine in (long, short)] == [(1,), (10,)]
    short.resume(inner(10))
    assert (short.result, long.has_ended) == (20, False)
    late = Coroutine(added_up(module, 100, 200))
    late.start()
    run(long)
    assert (long.result, late.has_ended) == (12, False)
    run(late)
    assert late.result == 600


def test_an_exception_of_the_function_is_its_outcome(module: Doubler, inner: Any) -> None:
    def fail() -> None:
        module(1)
        raise KeyError("mine")

    coroutine = Coroutine(fail)
    coroutine.start()
    coroutine.resume(2)
    assert coroutine.has_ended
    assert isinstance(coroutine.error, KeyError)
    assert coroutine.suspended is None


def test_an_exception_is_thrown_in_where_the_call_was_made(module: Doubler, inner: Any) -> None:
    left: list[str] = []

    def work() -> str:
        try:
            module(1)
        except ValueError as error:
            left.append(str(error))
        try:
            return str(module(2))
        finally:
            left.append("the end")

    coroutine = Coroutine(work)
    coroutine.start()
    coroutine.throw(ValueError("handled"))
    assert (coroutine.suspended[1], left) == ((2,), ["handled"])
    coroutine.throw(ValueError("not handled"))
    assert (coroutine.has_ended, left) == (True, ["handled", "the end"])
    assert str(coroutine.error) == "not handled"


def test_a_coroutine_that_is_left_before_its_start_never_runs() -> None:
    ran: list[int] = []
    coroutine = Coroutine(lambda: ran.append(1))
    coroutine.throw(ValueError("too late"))
    assert coroutine.has_ended
    assert str(coroutine.error) == "too late"
    assert ran == []


def test_a_call_outside_of_a_coroutine_is_the_module_s_own(module: Doubler, inner: Any) -> None:
    assert module(4) == inner(4) == 8
    seen: list[Any] = []
    handle = module.register_forward_pre_hook(lambda _, args: seen.append(args))
    assert (module(4), inner(5)) == (8, 10)
    handle.remove()
    assert seen == [(4,), (5,)]


def test_a_coroutine_in_a_coroutine_is_suspended_to_the_one_that_runs_it(module: Doubler, inner: Any) -> None:
    def outer() -> int:
        nested = Coroutine(added_up(module, 5))
        nested.start()
        assert nested.suspended[1] == (5,)
        nested.resume(module(7))  # by a call of its own, which suspends the outer one
        result: int = nested.result
        return result

    coroutine = Coroutine(outer)
    coroutine.start()
    assert coroutine.suspended[1] == (7,)
    coroutine.resume(70)
    assert (coroutine.error, coroutine.result) == (None, 70)


def test_whoever_resumes_a_coroutine_gets_its_next_call(module: Doubler, inner: Any) -> None:
    """It may have been started by another coroutine, which has ended since."""
    started = Coroutine(added_up(module, 1, 2))
    Coroutine(started.start).start()
    assert started.suspended[1] == (1,)
    started.resume(2)
    assert started.suspended[1] == (2,)
    run(started)
    assert started.result == 6


def test_a_context_variable_is_each_coroutine_s_own(module: Doubler, inner: Any) -> None:
    def remember(value: str) -> Callable[[], str]:
        def work() -> str:
            VALUE.set(value)
            module(1)
            return VALUE.get()

        return work

    coroutines = [Coroutine(remember(value)) for value in "ab"]
    for coroutine in coroutines:
        coroutine.start()
    assert VALUE.get() == "unset"
    for coroutine in coroutines:
        run(coroutine)
    assert [coroutine.result for coroutine in coroutines] == ["a", "b"]


def test_modules_are_left_as_they_were(module: Doubler) -> None:
    with ExitStack() as stack:
        suspend_calls(module, lambda *_: "call", stack)
        suspend_method(module, "half", lambda *_: "half", stack)
    assert (module._compiled_call_impl, "half" in vars(module)) == (None, False)
    coroutine = Coroutine(lambda: (module(3), module.half(3)))
    coroutine.start()
    assert (coroutine.has_ended, coroutine.result) == (True, (6, 1.5))


def test_a_method_suspends_like_a_call(module: Doubler) -> None:
    with ExitStack() as stack:
        half = suspend_method(module, "half", lambda args, kwargs: ("half", args, kwargs), stack)
        coroutine = Coroutine(lambda: module.half(number=8) + module(1))
        coroutine.start()
        assert coroutine.suspended == ("half", (), {"number": 8})
        assert half(9) == module.half(9) == 4.5  # from here it is the module's own
        coroutine.resume(4)
        assert coroutine.result == 6  # the call is not shared, and did not suspend


def test_a_compiled_module_s_call_stays_compiled(module: Doubler) -> None:
    def compiled(number: int) -> int:
        return 1000 * number

    module._compiled_call_impl = compiled
    with ExitStack() as stack:
        inner = suspend_calls(module, lambda args, _: args, stack)
        coroutine = Coroutine(lambda: module(3))
        coroutine.start()
        assert coroutine.suspended == (3,)
        assert (inner(3), module(4)) == (3000, 4000)
    assert module._compiled_call_impl is compiled


def test_what_describes_a_call_is_made_in_its_coroutine(module: Doubler) -> None:
    """An exception there is that coroutine's, and the others go on."""

    def prepare(args: Any, kwargs: Any) -> Any:
        if args[0] < 0:
            raise ValueError("negative")
        return VALUE.get()

    def work(number: int) -> Callable[[], Any]:
        def call() -> Any:
            VALUE.set(f"of {number}")
            return module(number)

        return call

    with ExitStack() as stack:
        suspend_calls(module, prepare, stack)
        good, bad = Coroutine(work(1)), Coroutine(work(-1))
        good.start()
        bad.start()
        assert (good.suspended, good.has_ended) == ("of 1", False)
        assert bad.has_ended
        assert str(bad.error) == "negative"
