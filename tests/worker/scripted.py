"""An engine that denoises nothing: the prompts of its jobs say what happens."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor

from app.jobs import AppliedGuidance, InputFiles, Job, JobError
from app.worker.models.model_states import ModelStates
from app.worker.protocol import JobCancelled, JobControl, JobOutput, Room
from tests.claiming import PICTURE

__all__ = ["ScriptedEngine"]

POLL_S = 0.01
HANG_S = 60


class ScriptedEngine:
    """Each job has a thread. `slow 3` is at step 3 until it is cancelled or `go` is set; `decode` cannot be left before
    `decoded` is set; `nan` fails; `device` is lost; every other prompt is done at once.
    """

    def __init__(self, images: int = 8) -> None:
        self.on_room: Callable[[], object] = lambda: None
        self.warm: tuple[str, ...] = ()
        self.states = ModelStates()
        self.stuck_s = 0.0
        self.submitted: list[str] = []  # ids, in order
        self.together: list[set[str]] = []  # the ids in flight when each of them began, itself included
        self.is_closed = False
        self.running = threading.Event()
        self.go = threading.Event()
        self.decoded = threading.Event()
        self.loading = threading.Event()
        self.may_load = threading.Event()
        self.may_load.set()
        self.absent: set[str] = set()  # models to be downloaded
        self.downloads: list[str] = []
        self._whole = images * PICTURE
        self.in_flight: dict[str, Job] = {}
        self._lock = threading.Lock()
        self._loads = ThreadPoolExecutor(1)

    def start(self) -> None: ...

    def close(self) -> None:
        self.is_closed = True
        self._loads.shutdown(wait=False)

    def takes_jobs(self, model: str) -> bool:
        return model not in self.absent

    def download(self, model: str) -> None:
        if model not in self.downloads:
            self.downloads.append(model)
            self.states.set(model, "downloading")

    def fits(self, model: str) -> bool:
        return model != "large"

    def load(self, model: str) -> Future[None]:
        return self._loads.submit(self._load, model)

    def room(self, model: str) -> Room:
        with self._lock:
            used = sum(job.request.cost for job in self.in_flight.values() if job.request.model == model)
            return Room(self._whole - used, self._whole, len(self.in_flight))

    def submit(self, job: Job, files: InputFiles, control: JobControl) -> Future[JobOutput | JobError]:
        future: Future[JobOutput | JobError] = Future()
        with self._lock:
            self.in_flight[job.id] = job
            self.submitted.append(job.id)
            self.together.append(set(self.in_flight))
        threading.Thread(target=self._run, args=(job, control, future), daemon=True).start()
        return future

    def _load(self, model: str) -> None:
        self.loading.set()
        assert self.may_load.wait(HANG_S)
        if model == "broken":
            raise OSError("no such model")
        self.warm = (*self.warm, model)
        self.states.set(model, "warm")

    def _run(self, job: Job, control: JobControl, future: Future[JobOutput | JobError]) -> None:
        try:
            outcome = self._outcome(job, control)
        except Exception as error:  # the test sees it
            self._end(job)
            future.set_exception(error)
        else:
            self._end(job)
            future.set_result(outcome)

    def _end(self, job: Job) -> None:
        with self._lock:
            del self.in_flight[job.id]
        self.on_room()

    def _outcome(self, job: Job, control: JobControl) -> JobOutput | JobError:
        what, _, step = job.request.prompt.partition(" ")
        if what == "device":
            raise RuntimeError("device lost")
        if what == "nan":
            return JobError("nan_output", "no numbers")
        if what == "slow":
            control.step = int(step)
            control.on_step()
        self.running.set()
        while what == "slow" and not self.go.wait(POLL_S):
            if control.is_cancelled:
                raise JobCancelled
        if what == "decode":
            assert self.decoded.wait(HANG_S)
        n = job.request.n
        return JobOutput(
            (b"one", b"two")[:n], (7, 8)[:n], "image/png", AppliedGuidance(False, "not_requested"), 1, 1.0, 2.0, 3.0
        )
