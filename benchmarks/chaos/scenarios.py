"""Two stories of a service under load: faults, and a rolling restart."""

from __future__ import annotations

import asyncio
import random
import signal
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Any

from tqdm import tqdm

from benchmarks.chaos.audit import Findings, audit
from benchmarks.chaos.clients import Clients, RequestOutcome, Wish, wishes
from benchmarks.chaos.faults import Faults
from benchmarks.chaos.fleet import Fleet, fleet

__all__ = ["Story", "chaos", "rolling"]

AT_ONCE = 24  # clients: enough that there is always work
#: Long enough that a busy machine does not lose a lease by itself, short enough to be waited for.
SETTINGS = {"NAG_LEASE_S": "3", "NAG_LOG_LEVEL": "info"}
TWIN = """
[models.shapes-twin]
extends = "shapes-flux"
description = "The same weights under another name."
"""


@dataclass
class Story:
    """What happened, and what was found."""

    events: dict[str, int]
    outcomes: list[RequestOutcome]
    answers: Counter[str]
    findings: Findings
    seconds: float
    unclean: list[str] = field(default_factory=list)  # parts that did not end in order

    @property
    def ends(self) -> Counter[str]:
        """Jobs by how they ended."""
        return Counter(f"{outcome.status} {outcome.code}".strip() for outcome in self.outcomes)

    @property
    def attempts(self) -> Counter[int]:
        return Counter(outcome.attempts for outcome in self.outcomes if outcome.status == "completed")

    @property
    def median_s(self) -> float:
        return median(outcome.total_s for outcome in self.outcomes)

    @property
    def longest_s(self) -> float:
        return max(outcome.total_s for outcome in self.outcomes)

    @property
    def server_errors(self) -> int:
        return sum(count for answer, count in self.answers.items() if answer.startswith("5"))

    @property
    def faults(self) -> dict[str, Any]:
        """What must not be; empty when all is well."""
        return self.findings.faults | ({"unclean": self.unclean} if self.unclean else {})


async def chaos(folder: Path, jobs: int, counts: Mapping[str, int], seed: int, limit_s: float, fsync: str) -> Story:
    """`jobs` requests while `counts` of each fault come. Raises TimeoutError when it is not over in time."""
    draw = random.Random(seed)  # noqa: S311 - a schedule, not a secret
    asked_for = wishes(jobs, draw, ["shapes-flux"], ["held", "polled"], unwanted=0.06)
    async with asyncio.timeout(limit_s), fleet(folder, SETTINGS, [{}, {}], fsync) as service:
        clients = Clients([api.url for api in service.apis], random.Random(seed + 1))  # noqa: S311
        faults = Faults(service, clients, counts, jobs, random.Random(seed + 2))  # noqa: S311
        begun_s = asyncio.get_running_loop().time()
        async with asyncio.TaskGroup() as group:
            group.create_task(faults.run())
            await _all(clients, asked_for)
        seconds = asyncio.get_running_loop().time() - begun_s
        findings = await audit(service, clients)
        await clients.close()
        events = dict(faults.done) | {"workers caught with jobs in their hands": faults.caught}
        return Story(events, clients.outcomes, clients.answers, findings, seconds, await service.stop())


async def rolling(folder: Path, seed: int, limit_s: float, at_once: int = AT_ONCE) -> Story:
    """Ends and replaces every worker and every API, one after the other, while clients go on asking.

    Two workers that serve a model each. Raises TimeoutError when it is not over in time.
    """
    catalog = folder / "twin.toml"
    catalog.write_text(TWIN)
    draw = random.Random(seed)  # noqa: S311
    endless = wishes(100_000, draw, ["shapes-flux", "shapes-twin"], ["held", "polled", "openai"], unwanted=0)
    # A request waits for as long as the only worker of its model is replaced, however slow the machine is.
    settings = SETTINGS | {"NAG_CATALOG": str(catalog), "NAG_WAIT_MAX_S": str(limit_s)}
    workers = [{"NAG_MODELS": "shapes-flux"}, {"NAG_MODELS": "shapes-twin"}]
    async with asyncio.timeout(limit_s), fleet(folder, settings, workers) as service:
        clients = Clients([api.url for api in service.apis], random.Random(seed + 1), timeout_s=limit_s)  # noqa: S311
        begun_s = asyncio.get_running_loop().time()
        over = asyncio.Event()
        async with asyncio.TaskGroup() as group:
            group.create_task(_all(clients, endless, over, at_once))
            unclean = await _replace_each(service)
            over.set()
        seconds = asyncio.get_running_loop().time() - begun_s
        findings = await audit(service, clients)
        await clients.close()
        events = {"workers replaced": len(service.workers), "APIs replaced": len(service.apis)}
        return Story(events, clients.outcomes, clients.answers, findings, seconds, unclean + await service.stop())


async def _replace_each(service: Fleet) -> list[str]:
    """Replaces each part, and returns those that did not end in order."""
    unclean = []
    for part in service.parts:
        await asyncio.sleep(1)  # of service by all
        tqdm.write(f"{part.name} is told to end")
        part.signal(signal.SIGTERM)
        if code := await part.ended():
            unclean.append(f"{part.name} ended with code {code}")
        await part.start()
        await service.serving(part)
    return unclean


async def _all(
    clients: Clients, asked_for: Iterable[Wish], over: asyncio.Event | None = None, at_once: int = AT_ONCE
) -> None:
    """Fulfils every wish, so many of them at a time, until it is over."""
    left = iter(asked_for)

    async def one_after_the_other() -> None:
        for wish in left:
            await clients.fulfil(wish)
            if over is not None and over.is_set():
                return

    async with asyncio.TaskGroup() as group:
        for _ in range(at_once):
            group.create_task(one_after_the_other())
