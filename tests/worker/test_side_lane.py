"""The second thread for autoencoders."""

from __future__ import annotations

import threading
from collections.abc import Callable
from queue import SimpleQueue
from typing import Any

import torch

from app.worker.devices.side_lane import SideLane
from tests.limits import HANG_S
from tests.worker.generate import CPU


def test_calls_run_in_order_in_a_thread_of_their_own_without_gradients() -> None:
    lane, results = SideLane(CPU), SimpleQueue[Any]()

    def call(number: int) -> Callable[[], Any]:
        return lambda: (number, threading.current_thread() is threading.main_thread(), torch.is_grad_enabled())

    for number in range(3):
        lane.run(call(number), results.put)
    assert [results.get(timeout=HANG_S) for _ in range(3)] == [(number, False, False) for number in range(3)]


def test_an_exception_is_a_result_and_the_next_call_runs() -> None:
    lane, results, error = SideLane(CPU), SimpleQueue[Any](), ValueError("no")

    def fail() -> None:
        raise error

    lane.run(fail, results.put)
    lane.run(lambda: "next", results.put)
    assert [results.get(timeout=HANG_S) for _ in range(2)] == [error, "next"]


def test_it_is_busy_from_the_call_until_the_last_result_is_there() -> None:
    lane, begun, go_on, states = SideLane(CPU), threading.Event(), threading.Event(), SimpleQueue[Any]()

    def call() -> None:
        begun.set()
        go_on.wait(HANG_S)

    assert (lane.busy_since, lane.is_busy) == (0, False)
    for work in (call, lambda: None):
        lane.run(work, lambda _: states.put((lane.busy_since, lane.is_busy)))
    assert begun.wait(HANG_S)
    assert lane.busy_since > 0
    go_on.set()
    assert [states.get(timeout=HANG_S) for _ in range(2)] == [(0, True), (0, False)]  # the second has not begun
