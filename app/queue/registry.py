"""Registry of live workers; an entry expires unless the worker refreshes it."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal, get_args

from app.logs import Log
from app.queue.scripts import Scripts
from app.queue.serialization import pairs

__all__ = ["ModelState", "Registry", "Stage"]

#: Of a model on its way into a worker's memory, the furthest first.
Stage = Literal["warm", "loading", "downloading", "failed", "cold"]
_log = Log("queue")


@dataclass(frozen=True)
class ModelState:
    """done_bytes and total_bytes: of a download, or of the memory that a model being loaded takes; 0 if unknown.
    error: the cause of a failure, for clients to read.
    """

    stage: Stage = "cold"
    done_bytes: int = 0
    total_bytes: int = 0
    error: str = ""


class Registry:
    def __init__(self, scripts: Scripts) -> None:
        self._scripts = scripts

    async def announce(
        self, worker: str, models: Sequence[str], ttl_s: float, *,
        serves: Sequence[str] = (), metrics: str = "", states: Mapping[str, ModelState] | None = None,
    ) -> None:  # fmt: skip
        """Announces for `ttl_s` that a worker is alive with these models warm.

        It `serves` those and what it can load, once it takes jobs at all. `metrics` is the host:port of its metrics. A
        model without a state is cold, or warm among `models`.
        """
        announcement = json.dumps(
            {
                "warm": list(models),
                "serves": sorted({*models, *serves}),
                "metrics": metrics,
                "states": {model: asdict(state) for model, state in (states or {}).items()},
            }
        )
        await self._scripts.run("announce", worker=worker, announcement=announcement, ttl_ms=round(ttl_s * 1000))

    async def retire(self, worker: str) -> None:
        """Take a worker out of the registry."""
        await self._scripts.run("retire", worker=worker)
        _log.info("worker_retired", worker=worker)

    async def workers(self) -> dict[str, list[str]]:
        """Workers alive now, each with its warm models."""
        return {name: announced["warm"] for name, announced in (await self._announced()).items()}

    async def served(self) -> set[str]:
        """The models that some worker alive now takes jobs for, warm or not."""
        return {model for announced in (await self._announced()).values() for model in announced["serves"]}

    async def states(self) -> dict[str, dict[str, ModelState]]:
        """The state of each model that a live worker has begun to fetch or load, by worker and model."""
        return {
            name: {model: ModelState(**state) for model, state in announced.get("states", {}).items()}
            | {model: ModelState("warm") for model in announced["warm"]}
            for name, announced in (await self._announced()).items()
        }

    async def model_states(self) -> dict[str, ModelState]:
        """The state of each model on the live worker that is furthest with it; a model that is left out is cold."""
        furthest: dict[str, ModelState] = {}
        for states in (await self.states()).values():
            for model, state in states.items():
                furthest[model] = min(state, furthest.get(model, state), key=_distance)
        return furthest

    async def exporters(self) -> dict[str, str]:
        """Where the workers alive now show their metrics, host:port by worker."""
        workers = await self._announced()
        return {name: announced["metrics"] for name, announced in workers.items() if announced.get("metrics")}

    async def _announced(self) -> dict[str, dict[str, Any]]:
        return {name: json.loads(text) for name, text in pairs(await self._scripts.run("list_workers")).items()}


def _distance(state: ModelState) -> int:
    """From being warm, in stages."""
    return get_args(Stage).index(state.stage)
