"""Compiled denoisers: a limit of graphs that a mixed load does not reach, and a report if it does."""

from __future__ import annotations

import contextvars
import logging
import threading
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
import torch

from app.jobs import Guidance, Job
from app.worker.devices import compilation
from app.worker.devices.compilation import compiled_calls
from app.worker.engine.batch_limit import BatchLimit
from app.worker.engine.module_runner import ModuleRunner
from app.worker.engine.shared_model import SharedModel
from app.worker.protocol import JobCancelled
from app.worker.recorder import Event, Recorder
from tests.worker.generate import CPU, generate, make_calls
from tests.worker.tiny_models import TINY_CASES, tiny_entry, tiny_model, tiny_pipe

pytestmark = pytest.mark.slow  # compiles

Make = Callable[..., Job]
BLOCKS = {"double_blocks": 1, "single_blocks": 1}
TOLERANCE = 2e-4  # of pixels in [0, 1]
NAG = Guidance(scale=5.0, tau=2.5, alpha=0.25, end=1.0, negative_prompt="a red shape")


@pytest.fixture(autouse=True)
def no_graphs_left() -> Iterator[None]:
    yield
    torch.compiler.reset()


@pytest.fixture
def torch_limit() -> Iterator[int]:
    """What torch allows by itself, for a test that takes it as given."""
    config = torch._dynamo.config
    previous_limit, config.recompile_limit = config.recompile_limit, 4
    yield config.recompile_limit
    config.recompile_limit = previous_limit


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


def test_more_kinds_of_calls_are_compiled_than_torch_allows(torch_limit: int) -> None:
    reached: list[int] = []
    with compiled_calls("m", lambda: reached.append(1)):
        assert call_with_sizes(torch_limit + 2) == torch_limit + 2
    assert not reached
    assert call_with_sizes(torch_limit + 2) == torch_limit


def test_a_call_leaves_nothing_in_memory() -> None:
    variables = len(contextvars.copy_context())
    for _ in range(5):
        with compiled_calls("m", lambda: None):
            pass
    assert len(contextvars.copy_context()) <= variables + 4  # those that torch keeps of its settings, once


def test_the_limit_is_logged_and_reported_of_this_thread_alone(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, torch_limit: int
) -> None:
    monkeypatch.setattr(compilation, "GRAPHS_MAX", 3)
    reached: list[int] = []
    with caplog.at_level(logging.WARNING, "nag.worker"), compiled_calls("m", lambda: reached.append(1)):
        other = threading.Thread(target=call_with_sizes, args=(20,))
        other.start()
        other.join()
        assert not reached
        assert call_with_sizes(5) == 3
    assert reached == [1]
    lines = [record.getMessage() for record in caplog.records if record.name == "nag.worker"]
    assert len(lines) == 1
    assert lines[0].startswith("recompile_limit_reached model=m graphs_max=3 message=")
    assert "'double'" in lines[0]
    call_with_sizes(torch_limit + 2)
    assert reached == [1]


def compiled_model(backend: Callable[..., Any] | str) -> SharedModel:
    """A small Flux whose denoiser is compiled for fixed sizes."""
    pipe = tiny_pipe("flux", **BLOCKS)
    pipe.transformer.compile(backend=backend, dynamic=False)
    return SharedModel(tiny_entry(TINY_CASES["flux"], pipe).model_copy(update={"compile": "denoiser"}), pipe)


@pytest.mark.filterwarnings("ignore::DeprecationWarning:torch")
@pytest.mark.filterwarnings("ignore:Dynamo detected a call to a `functools.lru_cache`")
def test_compiled_calls_have_a_power_of_two_of_rows_and_are_compiled_once(make_job: Make) -> None:
    graphs: list[int] = []

    def backend(module: Any, inputs: Any) -> Callable[..., Any]:
        graphs.append(1)
        return module.forward

    model, plain, rows = compiled_model(backend), tiny_model("flux", **BLOCKS), list[int]()
    model.pipe.transformer.register_forward_pre_hook(
        lambda _, args, kwargs: rows.append(len(kwargs["hidden_states"])), with_kwargs=True
    )

    def generate_both(seed: int) -> None:
        jobs = [
            make_job(f"{i}", seed=seed + i, width=16, height=16, num_inference_steps=steps, nag=NAG)
            for i, steps in enumerate((1, 2, 2))
        ]
        for image, expected in zip(generate(model, *jobs), generate(plain, *jobs), strict=True):
            assert np.abs(image.pixels - expected.pixels).max() < TOLERANCE
            assert image.batch_size == expected.batch_size == 3  # the row that fills the call up is nobody's

    generate_both(1)
    compiled = len(graphs)
    generate_both(5)
    assert rows == [4, 2, 4, 2]
    assert len(graphs) == compiled > 0
    model.close()


@pytest.mark.filterwarnings("ignore::DeprecationWarning:torch")
@pytest.mark.filterwarnings("ignore:Dynamo detected a call to a `functools.lru_cache`")
def test_the_limit_is_counted_by_model(make_job: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    recorder = Recorder()
    runner = ModuleRunner(CPU, recorder, lambda entry: BatchLimit(entry.default_cost, 4, is_fixed=True), lambda: False)
    model = compiled_model("eager")
    monkeypatch.setattr(compilation, "GRAPHS_MAX", 2)
    torch.compiler.reset()
    for count, is_reached in ((1, False), (2, False), (4, True)):
        calls = make_calls(model, make_job("a", n=count, width=16, height=16))
        with torch.no_grad():  # a call that is suspended has turned gradients off, and restores what was before
            for call in calls:
                call.start()
            while calls[0].suspended.module.kind == "text":
                for call, output in zip(calls, runner.run(calls), strict=True):
                    call.resume(output)
            runner.run(calls)
            for call in calls:
                call.throw(JobCancelled())
        assert (recorder.of(Event.RECOMPILE_LIMIT, model.entry.id) > 0) == is_reached
    model.close()
