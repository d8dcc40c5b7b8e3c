"""What the engine tells the recorder about requests that share denoiser calls."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future
from threading import Event as Flag
from time import time

import pytest
from prometheus_client import generate_latest

from app.jobs import Guidance, Job, JobError
from app.worker.engine.torch_engine import TorchEngine
from app.worker.protocol import JobCancelled, JobControl, JobOutput
from tests.limits import HANG_S
from tests.metrics_text import of_text

MODEL = "shapes-flux"
NAG = Guidance(scale=5.0, tau=2.5, alpha=0.25, end=1.0, negative_prompt="a red shape")
Make = Callable[..., Job]


def submit_together(
    engine: TorchEngine, *jobs: Job, on_step: Callable[[], object] = lambda: None
) -> list[Future[JobOutput | JobError]]:
    """Hands jobs over while the engine's thread is held up, so that it finds all of them at once."""
    held, is_held = Flag(), Flag()

    def hold() -> None:
        is_held.set()
        held.wait(HANG_S)

    engine._inbox.put(hold)
    is_held.wait(HANG_S)
    futures = [engine.submit(job, {}, JobControl(on_step=on_step)) for job in jobs]
    held.set()
    return futures


class Metrics:
    """What an engine's metrics have become since this was made."""

    def __init__(self, engine: TorchEngine) -> None:
        self._engine = engine
        self._before = self._read()

    def __getitem__(self, key: tuple[str, ...]) -> float:
        return self._read()[key] - self._before.get(key, 0.0)

    def _read(self) -> dict[tuple[str, ...], float]:
        return of_text(generate_latest(self._engine.recorder.registry).decode())


def test_joined_calls_are_counted_once_with_their_images(engine: TorchEngine, make_job: Make) -> None:
    metrics = Metrics(engine)
    jobs = make_job("a", n=2, num_inference_steps=2), make_job("b", num_inference_steps=3, nag=NAG)
    outputs = [future.result(HANG_S) for future in submit_together(engine, *jobs)]
    assert [output.batch_size for output in outputs if isinstance(output, JobOutput)] == [3, 3]
    assert metrics["nag_denoiser_call_images_count", MODEL] == 3
    assert metrics["nag_denoiser_call_images_sum", MODEL] == 2 * 2 + 3
    assert metrics["nag_denoiser_call_rows_sum", MODEL] == 2 * 2 + 3
    assert metrics["nag_step_seconds_count", "mixed", MODEL] == 2
    assert metrics["nag_step_seconds_count", "nag", MODEL] == 1
    assert metrics["nag_time_to_first_step_seconds_count", MODEL] == 2
    assert metrics["nag_images_in_flight", MODEL] == 0


def test_the_first_step_begins_when_its_denoiser_call_does(engine: TorchEngine, make_job: Make) -> None:
    """Not when the prompt is encoded: of two that cannot join, one waits for the other's step."""
    jobs = make_job("a", num_inference_steps=1), make_job("b", num_inference_steps=1, width=32, height=32)
    steps_done_at: list[float] = []
    futures = submit_together(engine, *jobs, on_step=lambda: steps_done_at.append(time()))
    outputs = [future.result(HANG_S) for future in futures]
    begun_at = sorted(output.first_step_at for output in outputs if isinstance(output, JobOutput))
    assert begun_at[0] <= steps_done_at[0] <= begun_at[1]


def test_cancelled_images_are_not_in_flight(engine: TorchEngine, make_job: Make) -> None:
    metrics, held, is_held = Metrics(engine), Flag(), Flag()
    control = JobControl(on_step=lambda: (is_held.set(), held.wait(HANG_S)))
    future = engine.submit(make_job("a", n=2, num_inference_steps=9), {}, control)
    assert is_held.wait(HANG_S)
    assert metrics["nag_images_in_flight", MODEL] == 2
    control.is_cancelled = True
    held.set()
    with pytest.raises(JobCancelled):
        future.result(HANG_S)
    assert metrics["nag_images_in_flight", MODEL] == 0
