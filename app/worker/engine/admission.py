"""Decides when a job begins: once its model and its LoRAs are loaded."""

from __future__ import annotations

from collections.abc import Callable

from app.worker.engine.active_jobs import ActiveJob
from app.worker.engine.shared_model import SharedModel
from app.worker.models.adapter_cache import AdapterCache
from app.worker.models.file_reader import FileReader
from app.worker.models.model_cache import Deferral, ModelCache
from app.worker.models.model_states import ModelStates

__all__ = ["Admission"]


class Admission:
    """Keeps the jobs that cannot begin yet. Used by the engine's thread.

    Attributes:
        waiting: the jobs that cannot begin yet.
        needs_room: whether one of them waits for jobs to end. Any thread may read it.
        needs_lane_idle: whether a model is to be built as soon as nothing runs in the side lane.

    """

    def __init__(
        self,
        cache: ModelCache,
        adapters: AdapterCache,
        files: FileReader,
        states: ModelStates,
        is_busy_aside: Callable[[], bool],
    ) -> None:
        self.waiting: list[ActiveJob] = []
        self.needs_room = False
        self.needs_lane_idle = False
        self._cache, self._adapters, self._files, self._states = cache, adapters, files, states
        self._is_busy_aside = is_busy_aside

    def admit(self, active: ActiveJob) -> SharedModel | None:
        """Returns the model of a job that may begin, and holds its LoRAs; otherwise keeps the job and returns None.

        Raises ModelUnavailable, LoraUnavailable.
        """
        request = active.job.request
        try:
            model = self._model(request.model)
            self._adapters.acquire(model, request.loras)
        except Deferral as deferral:
            self.waiting.append(active)
            self.needs_room = self.needs_room or deferral.needs_room
            return None
        active.holds_loras = True
        return model

    def take_waiting(self) -> list[ActiveJob]:
        """Returns the jobs that could not begin, which are to be admitted again, and forgets them."""
        waiting, self.waiting = self.waiting, []
        self.needs_room = self.needs_lane_idle = False
        return waiting

    def forget_read(self, name: str) -> None:
        """Drops the files that were read of a model, if no job waits for it any more."""
        is_awaited = any(active.job.request.model == name for active in self.waiting)
        if not is_awaited and name not in self._cache.warm:
            self._files.forget(name)
            self._states.set(name, "cold")

    def _model(self, name: str) -> SharedModel:
        """Returns the model, loaded if need be.

        Raises Deferral while its files are read in another thread, if others are warm and served meanwhile.
        """
        is_cold = name not in self._cache.warm
        if is_cold and self._cache.needs_files(name):
            is_read = not self._cache.warm or self._files.has_read(name)
            # To build a model changes the whole process, such as torch's default dtype: nothing may compute meanwhile.
            needs_lane_idle = is_read and self._is_busy_aside()
            if self._cache.has_room(name) and (needs_lane_idle or not is_read):
                self.needs_lane_idle = self.needs_lane_idle or needs_lane_idle
                raise Deferral(needs_room=False)
        model = self._cache.get(name)
        if is_cold:
            self._files.forget(name)
            self._states.set(name, "warm")
        return model
