"""The workers that are alive, each by its own word, which is good for a while."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from app.logs import Log
from app.queue.codec import pairs
from app.queue.lua import Scripts

__all__ = ["Registry"]

_log = Log("queue")


class Registry:
    def __init__(self, scripts: Scripts) -> None:
        self._scripts = scripts

    async def announce(
        self, worker: str, models: Sequence[str], ttl_s: float, *, serves: Sequence[str] = (), metrics: str = ""
    ) -> None:
        """Say that a worker is alive with these models warm, for `ttl_s`; it `serves` those and what it can load.
        `metrics` is host:port where it shows its metrics.
        """
        said = json.dumps({"warm": list(models), "serves": sorted({*models, *serves}), "metrics": metrics})
        await self._scripts.run("announce", worker, said, round(ttl_s * 1000))

    async def retire(self, worker: str) -> None:
        """Take a worker out of the registry."""
        await self._scripts.run("retire", worker)
        _log.info("worker_retired", worker=worker)

    async def workers(self) -> dict[str, list[str]]:
        """Workers alive now, each with its warm models."""
        return {name: said["warm"] for name, said in (await self._announced()).items()}

    async def served(self) -> set[str]:
        """The models that some worker alive now takes jobs for, warm or not."""
        return {model for said in (await self._announced()).values() for model in said["serves"]}

    async def exporters(self) -> dict[str, str]:
        """Where the workers alive now show their metrics, host:port by worker."""
        said = await self._announced()
        return {name: each["metrics"] for name, each in said.items() if each.get("metrics")}

    async def _announced(self) -> dict[str, dict[str, Any]]:
        return {name: json.loads(said) for name, said in pairs(await self._scripts.run("workers")).items()}
