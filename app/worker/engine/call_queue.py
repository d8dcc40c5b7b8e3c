"""Pipeline calls that wait for a shared module, and the group of them that runs next."""

from __future__ import annotations

from collections.abc import Sequence
from time import time
from typing import Any

from app.worker.engine.module_runner import ModuleRunner
from app.worker.engine.pipeline_call import PipelineCall
from app.worker.engine.scheduler import WaitingCall, charge_tenants, choose_group
from app.worker.recorder import Event, Recorder

__all__ = ["CallQueue"]


class CallQueue:
    """Of the engine's thread alone."""

    def __init__(self, runner: ModuleRunner, recorder: Recorder) -> None:
        self._runner, self._recorder = runner, recorder
        self._since: dict[PipelineCall, float] = {}  # in the order of their suspension, with the time of that
        self._too_large: list[PipelineCall] = []  # to be run with nothing else resident
        self._last_group: list[PipelineCall] = []
        self._served_s: dict[str, float] = {}

    def __contains__(self, call: PipelineCall) -> bool:
        return call in self._since

    @property
    def has_too_large(self) -> bool:
        """Whether a call waits to be run with nothing else resident."""
        return bool(self._too_large)

    def add(self, call: PipelineCall, *, is_too_large: bool = False) -> None:
        """Adds a call that has just been suspended, or that did not fit into memory together with others."""
        self._since[call] = time()
        if is_too_large:
            self._too_large.append(call)

    def remove(self, call: PipelineCall) -> None:
        """Removes a call that is to be left."""
        del self._since[call]
        if call in self._too_large:
            self._too_large.remove(call)

    def run_next(self, *, is_busy_aside: bool) -> list[tuple[PipelineCall, Any]]:
        """Calls the module that the next group waits for.

        Args:
            is_busy_aside: whether another thread calls a module, so that a call that must be alone has to wait.

        Returns:
            Each call of the group with the module's output or the exception to throw; empty if none can run.

        """
        waiting = {call.number: call for call in self._since if call not in self._too_large}
        texts = [call for call in waiting.values() if call.suspended.module.kind == "text"]
        if texts:
            return self._run([call for call in texts if call.suspended.key == texts[0].suspended.key])
        if waiting:
            described = [self._describe(call) for call in waiting.values()]
            chosen = choose_group(described, self._served_s, time())
            group = [waiting[call.id] for call in chosen]
            self._count_preemption(group)
            seconds = sum(call.step_s for call in chosen)
            self._served_s = charge_tenants(self._served_s, chosen, seconds, {call.tenant for call in described})
            return self._run(group)
        if self._too_large and not is_busy_aside:
            return self._run([self._too_large.pop(0)], is_alone=True)
        return []

    def _run(self, group: Sequence[PipelineCall], *, is_alone: bool = False) -> list[tuple[PipelineCall, Any]]:
        for call in group:
            del self._since[call]
        return list(zip(group, self._runner.run(group, is_alone=is_alone), strict=True))

    def _describe(self, call: PipelineCall) -> WaitingCall:
        """Returns what the scheduler needs to know about a suspended call."""
        job, suspended = call.job, call.suspended
        step_s = self._runner.estimate_s(call)
        return WaitingCall(
            id=call.number,
            group=suspended.key,
            cost=call.cost,
            limit=self._runner.limit(call.model.entry),
            tenant=job.tenant,
            priority=job.priority,
            deadline_at=job.deadline_at,
            remaining_s=step_s * max(1, job.request.steps - call.steps_done),
            step_s=step_s,
            waiting_since=self._since[call],
        )

    def _count_preemption(self, group: Sequence[PipelineCall]) -> None:
        """Counts a step of newer requests that goes before those of the last group which still wait."""
        left = [call for call in self._last_group if call in self._since]
        if left and not {*left} & {*group} and min(call.number for call in group) > max(call.number for call in left):
            self._recorder.add(Event.PREEMPTED, left[0].job.request.model)
        self._last_group = list(group)
