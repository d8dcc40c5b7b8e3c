"""The models of a worker, and jobs through them. Runs in the torch threads; the only importer of torch's side."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from time import perf_counter
from typing import Any

from app.catalog import Catalog
from app.jobs import Job, JobError
from app.logs import Log
from app.settings import Settings
from app.worker import memory, pipelines
from app.worker.budget import measure
from app.worker.caller import Budgets, Caller
from app.worker.downloads import Downloads
from app.worker.gpu import GpuCollector
from app.worker.outcome import NAN, outcome
from app.worker.pool import ModelUnavailable, Pool
from app.worker.prompts import PromptCache
from app.worker.recorder import Event, Recorder, Stage
from app.worker.stages import Stages
from app.worker.states import ModelStates
from app.worker.trial import trial_s
from app.worker.video import can_write
from app.worker.work import Control, Made

__all__ = ["UNWRITABLE", "TorchEngine"]

UNWRITABLE = JobError("codec_unavailable", "video_codec: this worker's FFmpeg cannot write it; h264 is always there")
_log = Log("worker")


class TorchEngine:
    """Implements work.Engine. Raises what torch raises where the device is not there."""

    def __init__(self, catalog: Catalog, settings: Settings, recorder: Recorder) -> None:
        self._models = catalog.models
        self.recorder = recorder
        self._measures = settings.batch_budget == "measured"
        self._device = device = pipelines.resolve_device(settings.device)
        overlap = settings.overlap == "on" or (settings.overlap == "auto" and device.type == "cuda")
        self._stages = Stages(device, overlap)
        if device.type == "cuda":
            recorder.registry.register(GpuCollector(device))
        budget_bytes = settings.model_memory_bytes or memory.budget_bytes(device)
        self.states = ModelStates()
        self._pool = Pool(self._models, device, budget_bytes, pipelines.load, recorder, self._stages.quiet, self.states)
        self._downloads = Downloads(self._models, self.states, self._pool.fail)
        self._measured: set[str] = set()
        self._budgets = Budgets(settings.batch_size)
        prompts = PromptCache(settings.prompt_cache_bytes)
        self._caller = Caller(device, self._stages, self._pool, prompts, self._budgets, recorder)

    @property
    def warm(self) -> tuple[str, ...]:
        states = self.states.snapshot()  # one that is loaded at the start is not warm before it was measured
        return tuple(model for model in self._pool.warm if states[model].stage == "warm")

    @property
    def is_downloading(self) -> bool:
        return self._downloads.is_active

    def takes_jobs(self, model: str) -> bool:
        return self._downloads.is_complete(model) or self._pool.failure(model) is not None

    def download(self, model: str) -> None:
        self._downloads.start(model)

    def fits(self, model: str) -> bool:
        return self._pool.fits(model)

    def budget(self, model: str) -> int:
        return self._budgets.of(self._models[model])

    def load(self, model: str) -> None:
        with self._stages.enter():
            self.pipe(model)
        try:
            self._warm_up(model)
        except Exception:
            with self._stages.enter(alone=True):
                if model in self._pool.warm:
                    self._pool.drop(model)
            raise
        self.states.set(model, "warm")

    def is_measured(self, model: str) -> bool:
        return not self._measures or model in self._measured

    def measure(self, model: str) -> None:
        try:
            self._warm_up(model)
        except Exception as error:  # it has served a job: the budget stays what it was
            self._measured.add(model)
            _log.error("model_not_measured", model=model, error=type(error).__name__, message=error)

    def _warm_up(self, model: str) -> None:
        entry = self._models[model]
        with self._stages.enter(alone=True):
            begun = perf_counter()
            trial = partial(trial_s, self.pipe(model), entry, self._device, sketch=self._caller.sketch(entry))
            found = measure(trial, self._budgets.most_pictures if self._measures else 1)
        if self._measures:
            self._budgets.measured(entry, found.pictures)
        self._measured.add(model)
        warm_up_ms = (perf_counter() - begun) * 1000
        _log.info(
            "model_warm", model=model, pictures=found.pictures if self._measures else self._budgets.most_pictures,
            budget=self.budget(model), why=found.why if self._measures else "setting",
            pictures_per_s=found.table(), warm_up_ms=warm_up_ms,
        )  # fmt: skip

    def run(self, jobs: Sequence[Job], control: Control) -> dict[str, Made | JobError]:
        entry = self._models[jobs[0].request.model]
        outcomes: dict[str, Made | JobError] = {job.id: UNWRITABLE for job in jobs if not _can_write(job)}
        jobs = [job for job in jobs if job.id not in outcomes]
        if not jobs:
            return outcomes
        try:
            with self._stages.enter():
                control.check()
                pipe = self.pipe(entry.id)
                self.states.set(entry.id, "warm")
        except ModelUnavailable as error:
            self._downloads.check(entry.id)
            return outcomes | {job.id: JobError("model_unavailable", str(error)) for job in jobs}
        done = self._caller.run(pipe, entry, jobs, control)
        for job in jobs:
            with self.recorder.timed(Stage.FILE, entry.id):
                outcomes[job.id] = outcome(job, done)
        self.recorder.add(Event.NAN_OUTPUT, entry.id, sum(each is NAN for each in outcomes.values()))
        return outcomes

    def pipe(self, model: str) -> Any:
        """The model's pipeline, loaded if need be. Raises ModelUnavailable."""
        return self._pool.get(model)

    def recover(self) -> None:
        """After a batch that raised: free its memory. Raises where the device itself has failed for good."""
        memory.free(self._device)


def _can_write(job: Job) -> bool:
    return job.request.video_codec is None or can_write(job.request.video_codec)
