"""The engine: runs every image and video as a pipeline call of its own, and joins them where they call shared modules.

One thread runs all pipeline calls, one at a time, and calls the modules for them:

1. `submit` hands a job over. Once its model and LoRAs are loaded (`Admission`), `_admit` begins a pipeline call for
   each of its images, which runs until it calls a shared module.
2. Text encoders run at once, so that what is new can join the next step. `choose_group` decides which denoiser or
   decoder calls run next; they become one call (`call_module`), and each pipeline call continues with its part.
3. Where a group fails, it is halved, until the call at fault fails alone.
4. When all images of a job are there, another thread encodes its files, and the job's future is done.

"""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from functools import partial
from queue import Empty, SimpleQueue
from time import monotonic
from typing import Any

import torch

from app.catalog import Catalog, Model
from app.jobs import InputFiles, Job, JobError
from app.logs import Log
from app.settings import Settings
from app.worker.devices import memory
from app.worker.devices.device_group import DeviceGroup
from app.worker.devices.gpu import GpuCollector, set_precision
from app.worker.devices.side_lane import SideLane
from app.worker.engine import pipelines
from app.worker.engine.active_jobs import ActiveJob, RoomCounter
from app.worker.engine.admission import Admission
from app.worker.engine.batch_limit import BatchLimit
from app.worker.engine.call_queue import CallQueue
from app.worker.engine.job_errors import UNWRITABLE, job_error
from app.worker.engine.module_runner import ModuleRunner, RetryAloneError
from app.worker.engine.pipeline_call import PipelineCall
from app.worker.engine.shared_model import SharedModel
from app.worker.models.adapter_cache import AdapterCache, LoraFiles, LoraUnavailable
from app.worker.models.downloads import Downloads
from app.worker.models.file_reader import FileReader
from app.worker.models.model_cache import ModelCache, ModelUnavailable
from app.worker.models.model_states import ModelStates
from app.worker.models.warmup import trial_files, warm_up
from app.worker.outputs.postprocess import NAN, to_job_output
from app.worker.outputs.previews import Sketch
from app.worker.outputs.video import can_write
from app.worker.prompts.encoder_memo import EncoderMemo
from app.worker.protocol import JobCancelled, JobControl, JobOutput, Room
from app.worker.recorder import Event, Recorder, Stage

__all__ = ["TorchEngine"]

#: Images of a denoiser call at most where the limit is not measured, because a rank out of memory ends the worker.
SPLIT_MAX = 8
CPU = torch.device("cpu")
CLOSE_S = 2.0  # for the module call under way to end
POLL_S = 0.05  # between two looks at jobs that wait for a module call in another thread, or for room
_log = Log("worker")


class TorchEngine:
    """Implements protocol.Engine. Raises what torch raises if the device is not there."""

    def __init__(
        self, catalog: Catalog, settings: Settings, recorder: Recorder, lora_files: LoraFiles | None = None
    ) -> None:
        self.on_room: Callable[[], object] = lambda: None
        self.recorder = recorder
        self.states = ModelStates()
        self._models = catalog.models
        self._measures = settings.batch_budget == "measured"
        self._images_max = settings.batch_size
        self._device = device = pipelines.resolve_device(settings.device)
        set_precision(settings, device)
        if device.type == "cuda":
            recorder.registry.register(GpuCollector(device))
        budget_bytes = settings.model_memory_bytes or memory.budget_bytes(device)
        has_ranks = settings.devices is not None and settings.nodes * len(settings.devices) > 1
        self._group = DeviceGroup(settings) if has_ranks else None
        self._cache = ModelCache(
            self._models, device, budget_bytes, self._group.load if self._group else pipelines.load, recorder,
            self._models_in_use, self.states, settings.model_host_bytes, self._group,
        )  # fmt: skip
        lora_bytes = settings.lora_memory_bytes or memory.budget_bytes(device, memory.LORAS_SHARE)
        self._adapters = AdapterCache(device, settings.lora_host_bytes, lora_bytes, lora_files, recorder, self._wake)
        self._downloads = Downloads(self._models, self.states, self._cache.fail)
        self._files = FileReader(self._models, self.states, memory.budget_bytes(CPU), self._note_read)
        self._admission = Admission(self._cache, self._adapters, self._files, self.states, lambda: self._is_busy_aside)
        self._memo = EncoderMemo(settings.prompt_cache_bytes)
        self._sketches: dict[str, Sketch] = {}
        self._unmeasured = set(self._models)  # have not generated their trial images yet

        # On a CPU both threads share the cores, so only a long decoding is worth it.
        self._side = None if settings.overlap == "off" else SideLane(device)
        self._only_videos_aside = settings.overlap == "auto" and device.type == "cpu"
        self._runner = ModuleRunner(device, recorder, self._batch_limit, self._cache.drop_idle)
        self._encoding = ThreadPoolExecutor(1, thread_name_prefix="files")
        self._thread = threading.Thread(target=self._serve, name="torch", daemon=True)
        self._inbox: SimpleQueue[Callable[[], None]] = SimpleQueue()
        self._is_closed = False
        self._failure: Exception | None = None  # of the device, for good
        self._busy_since = 0.0

        self._lock = threading.Lock()  # nothing is put into the inbox once the engine is closed
        self._in_flight = RoomCounter()

        # Of the engine's thread alone.
        self._calls_begun = 0
        self._running: dict[PipelineCall, ActiveJob] = {}
        self._waiting = CallQueue(self._runner, recorder)

    # Of any thread.

    @property
    def warm(self) -> tuple[str, ...]:
        states = self.states.snapshot()  # one that is loaded at the start is not warm before it was measured
        return tuple(model for model in self._cache.warm if states[model].stage == "warm")

    @property
    def stuck_s(self) -> float:
        times = (self._busy_since, self._side.busy_since if self._side else 0.0, self._files.busy_since)
        begun = [since for since in times if since]
        return monotonic() - min(begun) if begun else 0.0

    def takes_jobs(self, model: str) -> bool:
        return self._downloads.is_complete(model) or self._cache.failure(model) is not None

    def download(self, model: str) -> None:
        self._downloads.start(model)

    def fits(self, model: str) -> bool:
        return self._cache.fits(model)

    def start(self) -> None:
        self._thread.start()

    def close(self) -> None:
        with self._lock:
            self._is_closed = True
        self._wake()
        if self._thread.is_alive() and threading.current_thread() is not self._thread:
            # A process that ends while torch is at work in another thread aborts.
            self._thread.join(CLOSE_S)
        if self._group is not None:
            self._group.close()

    def _wake(self) -> None:
        """Has the engine's thread look for something to do."""
        self._inbox.put(lambda: None)

    def load(self, model: str) -> Future[None]:
        future: Future[None] = Future()
        self._ask(partial(_answer, future, partial(self._load, model)), future)
        return future

    def room(self, model: str) -> Room:
        entry = self._models[model]
        is_full = self._admission.needs_room or self._waiting.has_too_large
        return self._in_flight.room(entry, self._runner.limit(entry), is_full=is_full)

    def submit(self, job: Job, files: InputFiles, control: JobControl) -> Future[JobOutput | JobError]:
        running = ActiveJob(job, files, control, Future())
        self._in_flight.add(job)
        self.recorder.begin_images(job.request.model, job.request.n)
        self._ask(partial(self._admit, running), running.future)
        return running.future

    def _ask(self, call: Callable[[], None], future: Future[Any]) -> None:
        """Has the engine's thread do something, unless it has ended."""
        with self._lock:
            if not self._is_closed:
                self._inbox.put(call)
                return
        future.set_exception(self._failure or JobCancelled())

    # Of the engine's thread.

    def _serve(self) -> None:
        try:
            # Pipelines turn gradients off and restore what was before, in whatever order they end.
            with torch.no_grad():
                while not self._is_closed:
                    self._busy_since = monotonic()
                    self._receive()
                    if not self._advance():
                        self._busy_since = 0.0
                        self._rest()
        except Exception as error:  # the device has failed for good
            self._failure = error
            _log.error("engine_failed", error=type(error).__name__, message=error)
        self._busy_since = 0.0
        self.close()
        for running in dict.fromkeys((*self._running.values(), *self._admission.take_waiting())):
            for call in running.calls:
                if call in self._waiting:
                    self._waiting.remove(call)
                    call.throw(JobCancelled())
            running.future.set_exception(self._failure or JobCancelled())
        self._running.clear()
        self._receive()  # what was asked for meanwhile ends with the same error
        self._encoding.shutdown(wait=False)
        self._adapters.close()
        self._files.close()

    def _receive(self) -> None:
        """Does what other threads have asked for."""
        with suppress(Empty):
            while True:
                self._inbox.get_nowait()()

    def _rest(self) -> None:
        """Waits for something to do."""
        with suppress(Empty):
            self._inbox.get(timeout=POLL_S if self._running or self._admission.waiting else None)()

    def _advance(self) -> bool:
        """Runs one group of module calls, or measures a model. False if there is nothing to do now."""
        self._leave_cancelled()
        for running in self._admission.take_waiting():
            self._admit(running)
        outcomes = self._waiting.run_next(is_busy_aside=self._is_busy_aside)
        for call, outcome in outcomes:
            self._continue(call, outcome)
        if outcomes:
            return True
        is_idle = not (self._running or self._admission.waiting)
        if is_idle and (names := self._unmeasured.intersection(self._cache.warm)):
            self._measure(min(names))
            return True
        return False

    @property
    def _is_busy_aside(self) -> bool:
        return self._side is not None and self._side.is_busy

    def _admit(self, running: ActiveJob) -> None:
        """Begins the pipeline calls of a job, unless it has to wait for its model or its LoRAs."""
        request = running.job.request
        if self._is_closed or running.control.is_cancelled:
            self._end(running, error=self._failure or JobCancelled())
            return
        if request.video_codec is not None and not can_write(request.video_codec):
            self._end(running, UNWRITABLE)
            return
        try:
            model = self._admission.admit(running)
        except ModelUnavailable as error:
            self._downloads.check(request.model)
            self._end(running, JobError("model_unavailable", str(error)))
            return
        except LoraUnavailable as error:
            self._end(running, JobError("lora_unavailable", str(error)))
            return
        if model is None:
            return
        running.calls = [self._pipeline_call(model, running, index) for index in range(request.n)]
        self._running |= dict.fromkeys(running.calls, running)
        for call in running.calls:
            if call in self._running:  # none before it has failed
                call.start()
                self._settle(call)

    def _note_read(self, name: str) -> None:
        """Has the engine's thread admit what waits for them. Called in the thread that read the files of a model."""
        self._inbox.put(lambda: self._admission.forget_read(name))

    def _pipeline_call(
        self, model: SharedModel, running: ActiveJob, index: int, *, learns: bool = False
    ) -> PipelineCall:
        entry = model.entry
        sketch = None
        if learns or running.job.request.previews:
            sketch = self._sketches.setdefault(entry.id, Sketch(max(entry.width.default, entry.height.default)))
        self._calls_begun += 1
        return PipelineCall(
            self._calls_begun, model, running.job, index, running.files, running.control, self._device, self._memo,
            sketch, self.recorder,
        )  # fmt: skip

    def _continue(self, call: PipelineCall, outcome: Any) -> None:
        running = self._running.get(call)
        if running is None:  # its job has ended while another thread was at work for it
            call.throw(JobCancelled())
            return
        if isinstance(outcome, RetryAloneError):
            self._waiting.add(call, is_too_large=True)
            return
        if running.control.is_cancelled:
            outcome = JobCancelled()
        (call.throw if isinstance(outcome, Exception) else call.resume)(outcome)
        self._settle(call)

    def _settle(self, call: PipelineCall) -> None:
        """Notes where a pipeline call has come to: its end, or another module call."""
        running = self._running[call]
        step = sum(call.steps_done for call in running.calls) // len(running.calls)
        if step != running.control.step:
            running.control.step = step
            running.control.on_step()
        if call.error is not None:
            self._fail(running, call.error)
        elif call.has_ended:
            del self._running[call]
            if all(call.has_ended for call in running.calls):
                self._finish(running)
        elif self._side is not None and not self._admission.needs_lane_idle and self._runs_aside(call):
            self._side.run(partial(self._runner.run, [call]), partial(self._continue_aside, call))
        else:
            self._waiting.add(call)

    def _runs_aside(self, call: PipelineCall) -> bool:
        is_of_autoencoder = call.suspended.module.kind in ("encode", "decode")
        return is_of_autoencoder and not (self._only_videos_aside and call.job.request.num_frames is None)

    def _continue_aside(self, call: PipelineCall, outcomes: list[Any] | Exception) -> None:
        """Called in the side lane's thread."""
        if isinstance(outcomes, Exception):
            self._inbox.put(partial(_raise, outcomes))
        else:
            self._inbox.put(partial(self._continue, call, outcomes[0]))

    def _leave_cancelled(self) -> None:
        for running in dict.fromkeys(self._running.values()):
            if running.control.is_cancelled:
                self._fail(running, JobCancelled())

    def _fail(self, running: ActiveJob, error: Exception) -> None:
        """Leaves the pipeline calls of a job that have not ended, and reports its end."""
        for call in running.calls:
            if self._running.pop(call, None) is not None and not call.has_ended and call in self._waiting:
                self._waiting.remove(call)
                call.throw(JobCancelled())
        if isinstance(error, JobCancelled):
            self._end(running, error=error)
        else:
            self._end(running, job_error(error, running.job))

    def _finish(self, running: ActiveJob) -> None:
        """Encodes a job's files in another thread, then reports the job as finished."""
        job, images = running.job, [call.made for call in running.calls]
        running.calls = []
        self.recorder.first_step(job.request.model, min(image.first_step_at for image in images) - running.submitted_at)
        for image in images:
            self.recorder.image(job.request.model, image.encode_ms, image.denoise_ms, image.decode_ms)

        def encode() -> JobOutput | JobError:
            with self.recorder.timed(Stage.FILE, job.request.model):
                output = to_job_output(job, images)
            if output is NAN:
                self.recorder.add(Event.NAN_OUTPUT, job.request.model)
            return output

        self._release(running)
        self._encoding.submit(_answer, running.future, encode)

    def _end(self, running: ActiveJob, outcome: JobError | None = None, *, error: Exception | None = None) -> None:
        self._release(running)
        if error is not None:
            running.future.set_exception(error)
        elif outcome is not None:
            running.future.set_result(outcome)

    def _release(self, running: ActiveJob) -> None:
        """Gives back a job's room, and moves what is offloaded off the device when its model has nothing in flight."""
        job = running.job
        if running.holds_loras:
            self._adapters.release(job.request.model, job.request.loras)
        self.recorder.end_images(job.request.model, job.request.n)
        self._in_flight.remove(job)
        if job.request.model in self._cache.warm and job.request.model not in self._models_in_use():
            self._cache.get(job.request.model).free_modules()
        self.on_room()

    def _models_in_use(self) -> set[str]:
        return {call.job.request.model for call in self._running}

    def _load(self, name: str) -> None:
        self._cache.get(name)
        try:
            self._warm_up(name)
        except Exception:
            if name in self._cache.warm:
                self._cache.drop(name)
            raise
        self._unmeasured.discard(name)
        self.states.set(name, "warm")

    def _measure(self, name: str) -> None:
        self._unmeasured.discard(name)
        try:
            self._warm_up(name)
        except Exception as error:  # it has served a job: the limit stays what it was
            _log.error("model_not_measured", model=name, error=type(error).__name__, message=error)

    def _warm_up(self, name: str) -> None:
        model = self._cache.get(name)

        def make_call(job: Job) -> PipelineCall:
            return self._pipeline_call(
                model, ActiveJob(job, trial_files(model.entry), JobControl(), Future()), 0, learns=True
            )

        warm_up(model.entry, make_call, self._runner, measures=self._measures_model(model.entry))

    def _measures_model(self, entry: Model) -> bool:
        # A rank that is out of memory ends the worker, so several ranks do not try how much is too much.
        return self._measures and entry.parallel is None

    def _batch_limit(self, entry: Model) -> BatchLimit:
        is_fixed = not self._measures_model(entry)
        images_max = min(SPLIT_MAX, self._images_max) if self._measures and is_fixed else self._images_max
        return BatchLimit(entry.default_cost, images_max, is_fixed=is_fixed)


def _answer(future: Future[Any], call: Callable[[], Any]) -> None:
    """Gives a future what the call returns or raises."""
    try:
        result = call()
    except Exception as error:
        future.set_exception(error)
    else:
        future.set_result(result)


def _raise(error: Exception) -> None:
    raise error
