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

#: Stages of a model on its way into a worker's memory, the furthest first.
Stage = Literal["warm", "loading", "downloading", "failed", "cold"]
_log = Log("queue")


@dataclass(frozen=True)
class ModelState:
    """The stage of a model on a worker, and its progress.

    done_bytes, total_bytes: of a download, or of the memory that a loading model takes; 0 if unknown.
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

        serves: further models that it takes jobs for. metrics: host:port of its metrics. states: of models that are
        neither warm nor cold.
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
        """Removes a worker from the registry."""
        await self._scripts.run("retire", worker=worker)
        _log.info("worker_retired", worker=worker)

    async def workers(self) -> dict[str, list[str]]:
        """Returns the live workers, each with its warm models."""
        return {name: announced["warm"] for name, announced in (await self._announcements()).items()}

    async def served_models(self) -> set[str]:
        """Returns the models that at least one live worker takes jobs for, warm or not."""
        return {model for announced in (await self._announcements()).values() for model in announced["serves"]}

    async def states(self) -> dict[str, dict[str, ModelState]]:
        """Returns the state of each model that a live worker fetches, loads or has loaded, by worker and model."""
        return {
            name: {model: ModelState(**state) for model, state in announced.get("states", {}).items()}
            | {model: ModelState("warm") for model in announced["warm"]}
            for name, announced in (await self._announcements()).items()
        }

    async def model_states(self) -> dict[str, ModelState]:
        """Returns the state of each model on the live worker that is furthest with it; a missing model is cold."""
        furthest: dict[str, ModelState] = {}
        for states in (await self.states()).values():
            for model, state in states.items():
                furthest[model] = min(state, furthest.get(model, state), key=_distance)
        return furthest

    async def exporters(self) -> dict[str, str]:
        """Returns host:port of the metrics of each live worker that has them."""
        workers = await self._announcements()
        return {name: announced["metrics"] for name, announced in workers.items() if announced.get("metrics")}

    async def _announcements(self) -> dict[str, dict[str, Any]]:
        return {name: json.loads(text) for name, text in pairs(await self._scripts.run("list_workers")).items()}


def _distance(state: ModelState) -> int:
    """Counts the stages from here to warm."""
    return get_args(Stage).index(state.stage)
