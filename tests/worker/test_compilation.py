"""Compiled denoisers: a limit of graphs that a mixed load does not reach, and a report if it does."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from app.worker.work import Control

from app.jobs import Job
from app.settings import Settings
from app.worker import compilation
from app.worker.compilation import compiled_calls
from app.worker.engine import TorchEngine
from app.worker.recorder import Event, Recorder
from tests.worker.test_engine import MODEL, with_model

TORCH_LIMIT = 8


@pytest.fixture(autouse=True)
def no_graphs_left() -> Iterator[None]:
    yield
    torch.compiler.reset()


def call_with_sizes(count: int) -> int:
    """Calls a new compiled function with so many sizes; the number of those that ran compiled."""
    torch.compiler.reset()  # the limit is counted by function, and stays reached
    compiled: list[int] = []

    def backend(module: Any, inputs: Any) -> Callable[..., Any]:
        def run(*args: Any) -> Any:
            compiled.append(1)
            return module.forward(*args)

        return run

    @torch.compile(backend=backend, dynamic=False)
    def double(tensor: torch.Tensor) -> torch.Tensor:
        return tensor * 2

    for size in range(1, count + 1):
        double(torch.ones(size))
    return len(compiled)


def test_more_kinds_of_calls_are_compiled_than_torch_allows() -> None:
    reached: list[int] = []
    with compiled_calls("m", lambda: reached.append(1)):
        assert call_with_sizes(TORCH_LIMIT + 2) == TORCH_LIMIT + 2
    assert not reached
    assert call_with_sizes(TORCH_LIMIT + 2) == TORCH_LIMIT


def test_the_limit_is_logged_and_reported_of_this_thread_alone(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(compilation, "GRAPHS_MAX", 3)
    reached: list[int] = []
    with caplog.at_level(logging.WARNING, "nag.worker"), compiled_calls("m", lambda: reached.append(1)):
        other = threading.Thread(target=call_with_sizes, args=(TORCH_LIMIT + 2,))
        other.start()
        other.join()
        assert not reached
        assert call_with_sizes(5) == 3
    assert reached == [1]
    lines = [record.getMessage() for record in caplog.records if record.name == "nag.worker"]
    assert len(lines) == 1
    assert lines[0].startswith("recompile_limit_reached model=m graphs_max=3 message=")
    assert "'double'" in lines[0]
    call_with_sizes(TORCH_LIMIT + 2)
    assert reached == [1]


@pytest.mark.filterwarnings("ignore::DeprecationWarning:torch")
@pytest.mark.filterwarnings("ignore:Dynamo detected a call to a `functools.lru_cache`")
def test_a_worker_counts_it_by_model(make_job: Callable[..., Job], monkeypatch: pytest.MonkeyPatch) -> None:
    settings = Settings(device="cpu", batch_size=4, batch_budget="fixed")
    engine = TorchEngine(with_model(MODEL, compile="denoiser"), settings, Recorder())
    engine.pipe(MODEL).transformer.compile(backend="eager", dynamic=False)
    monkeypatch.setattr(compilation, "GRAPHS_MAX", 2)
    torch.compiler.reset()
    for n in (1, 2, 3):
        engine.run([make_job("a", n=n)], Control())
        assert engine.recorder.of(Event.RECOMPILE_LIMIT, MODEL) == (n > 2)
