"""Splits a batch into pipeline calls that fit the model's batch budget and the device's memory."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch

from app.catalog import Model
from app.jobs import PROMPT_TOO_LONG, Job, JobError
from app.logs import Log
from app.worker import memory
from app.worker.batching import Row, calls, overall_step
from app.worker.denoise import Denoised, Hooks, denoise, shares_models
from app.worker.outcome import Done
from app.worker.pipelines import takes_scale_a_row
from app.worker.pool import Pool
from app.worker.previews import Previews, Sketch
from app.worker.prompt_checks import PromptTooLong
from app.worker.prompts import PromptCache, encoding_kept
from app.worker.recorder import Event, Recorder, Stage
from app.worker.stages import Stages
from app.worker.work import Control, Preview

__all__ = ["Budgets", "Caller"]

ADVICE = '; shorten it, or send "strict": false'
_log = Log("worker")


@dataclass
class Budgets:
    """What a pipeline call may hold, in units of Generation.cost: as measured, less where memory did not suffice."""

    most_pictures: int  # of a model's default size
    by_model: dict[str, int] = field(default_factory=dict)

    def of(self, entry: Model) -> int:
        return self.by_model.get(entry.id, self.most_pictures * entry.default_cost)

    def measured(self, entry: Model, pictures: int) -> None:
        self.by_model[entry.id] = pictures * entry.default_cost

    def rows(self, entry: Model, job: Job) -> int:
        """How many pictures of this job's kind; one at least."""
        return max(1, self.of(entry) // _row_cost(job))

    def lower(self, entry: Model, job: Job, rows: int) -> None:
        """No more than `rows` pictures of this job's kind from now on."""
        self.by_model[entry.id] = min(self.of(entry), rows * _row_cost(job))


@dataclass(frozen=True)
class Caller:
    """Runs rows of one batch_key through a warm pipeline."""

    device: torch.device
    stages: Stages
    pool: Pool
    prompts: PromptCache
    budgets: Budgets
    recorder: Recorder
    sketches: dict[str, Sketch] = field(default_factory=dict)  # by model

    def sketch(self, entry: Model) -> Sketch:
        """What draws the model's previews."""
        return self.sketches.setdefault(entry.id, Sketch(max(entry.width.default, entry.height.default)))

    def run(self, pipe: Any, entry: Model, jobs: Sequence[Job], control: Control) -> list[Done]:
        """Raises Stopped, or what the model raises."""
        planned = calls(jobs, self.budgets.rows(entry, jobs[0]), partial(_apart, pipe))
        done: list[Done] = []
        for number, rows in enumerate(planned):
            on_step = partial(_on_step, control, number, len(planned), jobs[0].request.steps)
            last = number == len(planned) - 1
            hooks = Hooks(on_step, control.on_denoised if last else _nothing, files=control.files)
            done += self._readable(pipe, entry, rows, hooks, control.on_preview)
        return done

    def _readable(
        self, pipe: Any, entry: Model, rows: Sequence[Row], hooks: Hooks, show: Callable[[Preview], object]
    ) -> list[Done]:
        """Runs the rows; strict jobs whose prompts are too long for the model fail, and the others run without them."""
        try:
            return self._rows(pipe, entry, rows, hooks, show)
        except PromptTooLong as error:
            messages = error.messages
        done = [
            Done([row for row in rows if row.job.id == job_id], None, JobError(PROMPT_TOO_LONG, message + ADVICE))
            for job_id, message in messages.items()
        ]
        rest = [row for row in rows if row.job.id not in messages]
        return done + (self._rows(pipe, entry, rest, hooks, show) if rest else [])

    def _rows(
        self, pipe: Any, entry: Model, rows: Sequence[Row], hooks: Hooks, show: Callable[[Preview], object],
        *, alone: bool = False,
    ) -> list[Done]:  # fmt: skip
        """One call. If memory does not suffice: two of half the size, and no larger ones from now on; a single row is
        tried again while no other batch is at work, then with no other model in memory.
        """
        try:
            return [Done(rows, self._call(pipe, entry, rows, hooks, show, alone=alone))]
        except Exception as error:
            if not memory.is_out_of_memory(error):
                raise
            _log.warning("out_of_memory", model=entry.id, pictures=len(rows), error=type(error).__name__)
        memory.free(self.device)  # only here is the exception gone, and with its frames the tensors they held
        if len(rows) > 1:
            half = len(rows) // 2
            self.budgets.lower(entry, rows[0].job, half)
            self.recorder.add(Event.OOM_HALVED, entry.id)
            first = self._rows(pipe, entry, rows[:half], Hooks(hooks.on_step, files=hooks.files), show)
            return [*first, *self._rows(pipe, entry, rows[half:], hooks, show)]
        if (self.stages.overlap and not alone) or self._drop_others(entry):
            return self._rows(pipe, entry, rows, hooks, show, alone=True)
        return [Done(rows, None)]

    def _call(
        self, pipe: Any, entry: Model, rows: Sequence[Row], hooks: Hooks, show: Callable[[Preview], object],
        *, alone: bool,
    ) -> Denoised:  # fmt: skip
        asked = any(row.request.previews for row in rows)
        previews = Previews(self.sketch(entry), rows, show) if asked else None
        encoding = partial(encoding_kept, model=entry.id, cache=self.prompts, recorder=self.recorder)
        with self.stages.enter(alone=alone) as move_on:
            hooks.on_step(0)

            def on_denoised() -> None:
                if shares_models(entry) and move_on():
                    hooks.on_denoised()

            on_recompile_limit = partial(self.recorder.add, Event.RECOMPILE_LIMIT, entry.id)
            told = Hooks(hooks.on_step, on_denoised, previews, encoding, hooks.files, on_recompile_limit)
            denoised = denoise(pipe, entry, rows, self.device, told)
        stages_ms = {
            Stage.PROMPTS: denoised.encode_ms, Stage.DENOISE: denoised.denoise_ms, Stage.DECODE: denoised.decode_ms
        }  # fmt: skip
        pixels = denoised.pixels.size // 3
        self.recorder.call(entry.id, _guidance(rows, denoised), rows[0].request.steps, pixels, stages_ms)
        return denoised

    def _drop_others(self, entry: Model) -> bool:
        """Make the model the only one in memory; False if it is."""
        others = [model for model in self.pool.warm if model != entry.id]
        with self.stages.enter(alone=True):
            for model in others:
                self.pool.drop(model)
        return bool(others)


def _row_cost(job: Job) -> int:
    return job.request.cost // job.request.n


def _guidance(rows: Sequence[Row], denoised: Denoised) -> str:
    """What guides a call, as a label: nag is mixed where it reached some rows and not others."""
    reached = {each.applied for each in denoised.applied}
    by_nag = "mixed" if len(reached) > 1 else "nag" if reached == {True} else "plain"
    return {"plain": "cfg"}.get(by_nag, f"{by_nag}_cfg") if rows[0].request.cfg else by_nag


def _apart(pipe: Any, row: Row) -> Hashable:
    return None if takes_scale_a_row(pipe) else row.request.guidance_scale


def _nothing() -> None:
    pass


def _on_step(control: Control, call: int, calls_total: int, steps_total: int, step: int) -> None:
    control.step = max(control.step, overall_step(call, calls_total, step, steps_total))
    control.on_step()
    if step < steps_total:  # behind the last step only decoding is left: finish
        control.check()
