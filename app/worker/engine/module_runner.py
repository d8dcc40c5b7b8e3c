"""Calls a shared module for a group of pipeline calls: timed, within the model's limit, and halved if it fails."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import Any

import torch

import nag
from app.catalog import Model
from app.logs import Log
from app.worker.devices import memory
from app.worker.devices.compilation import compiled_calls
from app.worker.devices.pace import Pace
from app.worker.engine.batch_limit import BatchLimit
from app.worker.engine.pipeline_call import PipelineCall, call_module
from app.worker.recorder import Event, Recorder

__all__ = ["ModuleRunner", "OutOfMemory", "RetryAloneError"]

#: The share of the newest time in the running mean of a module's seconds per unit of cost.
NEWEST_SHARE = 0.3
_log = Log("worker")


class OutOfMemory(Exception):
    """A module call of one image does not fit, even with nothing else resident."""


class RetryAloneError(Exception):
    """A module call of one image did not fit while other calls were under way."""


class ModuleRunner:
    """Knows of each model the most cost of a denoiser call, by throughput and memory, and each module's time.

    Args:
        device: of all modules.
        recorder: for what happens.
        make_limit: makes the limit of a model's denoiser calls.
        free_models: lets go of what is resident and idle; returns whether there was anything.

    """

    def __init__(
        self,
        device: torch.device,
        recorder: Recorder,
        make_limit: Callable[[Model], BatchLimit],
        free_models: Callable[[], bool],
    ) -> None:
        self._device, self._recorder = device, recorder
        self._make_limit, self._free_models = make_limit, free_models
        self._limits: dict[str, BatchLimit] = {}
        self._seconds_per_cost: dict[tuple[str, str], float] = {}
        self._pace, self._memory = Pace(device), memory.CallMemory(device)

    def limit(self, entry: Model) -> int:
        """Returns the most cost of a denoiser call of the model, in units of Generation.cost."""
        return int(min(self._limit(entry).cost, self._memory.cost_max(entry.id)))

    def limit_max(self, entry: Model) -> int:
        """Returns the most that this limit can rise to."""
        return int(min(self._limit(entry).cost_max, self._memory.cost_max(entry.id)))

    def start_limit(self, entry: Model, images: int) -> None:
        """Begins again with a limit of so many images of the default size."""
        self._limit(entry).start(images)

    def _limit(self, entry: Model) -> BatchLimit:
        if entry.id not in self._limits:
            self._limits[entry.id] = self._make_limit(entry)
        return self._limits[entry.id]

    def estimate_s(self, call: PipelineCall) -> float:
        """Returns the estimated seconds of the module call that this one waits for; 0 if nothing is known yet."""
        return call.cost * self._seconds_per_cost.get((call.model.entry.id, call.suspended.module.kind), 0.0)

    def run(self, group: Sequence[PipelineCall], *, is_alone: bool = False) -> list[Any]:
        """Returns the module's output for each call of a group, or the exception to throw into it.

        A module call is a function of its arguments, so a group that fails is halved and each half is called again,
        until a call fails alone: with RetryAloneError for want of memory, or OutOfMemory if `is_alone` says that no
        other call is at work.
        """
        module, entry = group[0].suspended.module, group[0].model.entry
        cost, rows = sum(call.cost for call in group), sum(len(call.suspended.rows) for call in group)
        label = _guidance_label(group)

        def note_time(seconds: float) -> None:
            key = entry.id, module.kind
            mean = self._seconds_per_cost.get(key, seconds / cost)
            self._seconds_per_cost[key] = mean + NEWEST_SHARE * (seconds / cost - mean)
            if module.kind == "denoiser":
                self._recorder.denoiser_call(entry.id, label, len(group), rows, cost, seconds)
                self._limit(entry).note(label, cost, seconds)

        error: Exception | None = None
        try:
            with self._watched(entry, module.kind, cost), self._pace.timed(note_time):
                return call_module(group)
        except nag.CannotJoin:  # for a reason that their keys do not show
            pass
        except Exception as raised:
            is_out_of_memory = memory.is_out_of_memory(raised)
            if not is_out_of_memory:
                error = raised
            event = Event.OUT_OF_MEMORY if is_out_of_memory else Event.CALL_RAISED
            self._recorder.add(event, entry.id)
            _log.warning(event.value, model=entry.id, calls=len(group), error=type(raised).__name__)
            if is_out_of_memory and len(group) > 1:
                self._limit(entry).lower(sum(call.cost for call in group[: len(group) // 2]))
        # Only here is an exception for want of memory gone, and with its frames the tensors they held.
        memory.free(self._device)
        if len(group) > 1:
            halves = group[: len(group) // 2], group[len(group) // 2 :]
            return [outcome for half in halves for outcome in self.run(half, is_alone=is_alone)]
        if error is not None:
            return [error]
        if not is_alone:
            return [RetryAloneError()]
        return self.run(group, is_alone=True) if self._free_models() else [OutOfMemory()]

    @contextmanager
    def _watched(self, entry: Model, kind: str, cost: int) -> Iterator[None]:
        """Watches what a denoiser call takes of memory, and what torch compiles in it."""
        with ExitStack() as stack:
            if kind == "denoiser":
                stack.enter_context(self._memory.measured(entry.id, cost))
                if entry.is_compiled:
                    on_limit = partial(self._recorder.add, Event.RECOMPILE_LIMIT, entry.id)
                    stack.enter_context(compiled_calls(entry.id, on_limit))
            yield


def _guidance_label(group: Sequence[PipelineCall]) -> str:
    """Returns how a denoiser call is guided: by NAG none, all or some of its requests; with CFG if any has it."""
    guided = {any(row is not None and row.is_active for row in call.suspended.rows) for call in group}
    by_nag = "mixed" if len(guided) > 1 else "nag" if guided == {True} else "plain"
    if not any(call.job.request.cfg for call in group):
        return by_nag
    return {"plain": "cfg"}.get(by_nag, f"{by_nag}_cfg")
