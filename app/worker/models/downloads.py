"""Downloads in the background: warm models go on serving meanwhile."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from time import perf_counter

from app.catalog import Model
from app.loading.download import download
from app.loading.errors import LoadError, public_reason
from app.loading.hub import has_files
from app.logs import Log
from app.worker.models.model_states import ModelStates

__all__ = ["Downloads"]

_log = Log("worker")


class Downloads:
    """One at a time, in a thread of its own. `on_failure(model, reason)` is called in that thread."""

    def __init__(
        self, models: Mapping[str, Model], states: ModelStates, on_failure: Callable[[str, str], object]
    ) -> None:
        self._models = models
        self._states = states
        self._on_failure = on_failure
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="downloads")
        self._running: dict[str, Future[None]] = {}
        self._complete = {model for model, entry in models.items() if has_files(entry)}

    def is_complete(self, model: str) -> bool:
        """Whether the model's files are all on this machine, as far as is known."""
        return model in self._complete

    def check(self, model: str) -> None:
        """Look at the disk again: the model could not be loaded."""
        if not has_files(self._models[model]):
            self._complete.discard(model)

    def start(self, model: str) -> None:
        """Does nothing if the model is being downloaded already."""
        future = self._running.get(model)
        if future is None or future.done():
            self._states.set(model, "downloading")
            self._running[model] = self._thread.submit(self._download, model)

    def _download(self, model: str) -> None:
        entry, begun = self._models[model], perf_counter()
        _log.info("model_downloading", model=model, repository=entry.repository)
        try:
            download(entry, partial(self._states.progress, model, "downloading"))
        except Exception as error:  # whatever a download raises is this model's fault alone
            reason = public_reason(error)
            why = error.why if isinstance(error, LoadError) else error
            _log.error("model_not_downloaded", model=model, error=type(error).__name__, message=why)
            self._on_failure(model, f"the model could not be downloaded ({reason})")
        else:
            self._complete.add(model)
            _log.info("model_downloaded", model=model, seconds=perf_counter() - begun)
            self._states.set(model, "cold")
