"""What is done to the service: kill -9 of anything, and a worker that stands still past its lease and goes on."""

from __future__ import annotations

import asyncio
import random
import signal
from collections import Counter
from collections.abc import Mapping, Sequence

from redis.exceptions import RedisError
from tqdm import tqdm

from benchmarks.chaos.clients import Clients
from benchmarks.chaos.fleet import Fleet, Part

__all__ = ["FAULTS", "Faults"]

#: Each is a method of Faults.
FAULTS = ("kill_worker", "kill_api", "kill_redis", "freeze_worker")
LOOK_S = 0.005
PAUSE_MAX_S = 1.0  # before what was killed is started again, as by a supervisor
TRIES = 200  # to catch a worker with jobs in its hands


class Faults:
    """A schedule drawn from the seed: which fault comes when so many of the jobs have ended."""

    def __init__(
        self, fleet: Fleet, clients: Clients, counts: Mapping[str, int], jobs: int, draw: random.Random
    ) -> None:
        self.done: Counter[str] = Counter()
        self.caught = 0  # kills and freezes of workers that held jobs
        kinds = [kind for kind, count in counts.items() for _ in range(count)]
        draw.shuffle(kinds)
        # The last tenth is free of them, so that there is always work under way when one comes.
        self.schedule = sorted(zip((draw.uniform(0, 0.9 * jobs) for _ in kinds), kinds, strict=True))
        self._fleet = fleet
        self._clients = clients
        self._draw = draw
        self._restarts: set[asyncio.Task[None]] = set()

    async def run(self) -> None:
        """Returns when every fault has occurred and everything runs again."""
        for at, kind in self.schedule:
            while self._clients.ended < at:  # noqa: ASYNC110 - a look costs less than an event for every number
                await asyncio.sleep(LOOK_S)
            tqdm.write(f"{self._clients.ended:4} ended: {kind}")
            await getattr(self, kind)()
            self.done[kind] += 1
        await asyncio.gather(*self._restarts)

    async def kill_worker(self) -> None:
        part = await self._stopped_at_work()
        part.signal(signal.SIGKILL)
        await self._started_again(part)

    async def freeze_worker(self) -> None:
        """Stops a worker until others have taken all that it held, then continues it with its late results."""
        part = await self._stopped_at_work()
        name = await part.worker_name()
        while name in await self._held():  # noqa: ASYNC110 - the others are other processes
            await asyncio.sleep(10 * LOOK_S)
        await asyncio.sleep(self._draw.uniform(0, PAUSE_MAX_S))
        part.signal(signal.SIGCONT)

    async def kill_api(self) -> None:
        part = self._draw.choice(await self._serving(self._fleet.apis))
        part.signal(signal.SIGKILL)
        await self._started_again(part)

    async def kill_redis(self) -> None:
        await self._fleet.kill_server()
        await asyncio.sleep(self._draw.uniform(0, PAUSE_MAX_S))
        await self._fleet.start_server()

    async def _stopped_at_work(self) -> Part:
        """Returns a worker that stands still, with jobs in its hands if it could be caught so."""
        for left in reversed(range(TRIES)):
            part = self._draw.choice(await self._serving(self._fleet.workers))
            name = await part.worker_name()
            if name in await self._held() or not left:
                part.signal(signal.SIGSTOP)
                if caught := name in await self._held() or not left:
                    self.caught += caught
                    break
                part.signal(signal.SIGCONT)
            await asyncio.sleep(LOOK_S)
        return part

    async def _held(self) -> Mapping[str, set[str]]:
        while True:
            try:
                return await self._fleet.held()
            except RedisError:
                await asyncio.sleep(10 * LOOK_S)

    async def _serving(self, parts: Sequence[Part]) -> list[Part]:
        """Returns those parts that are not down, as soon as there are any."""
        while not (up := [part for part in parts if not part.down]):  # noqa: ASYNC110 - likewise
            await asyncio.sleep(10 * LOOK_S)
        return up

    async def _started_again(self, part: Part) -> None:
        part.down = True
        await part.ended()
        task = asyncio.create_task(self._start(part))
        self._restarts.add(task)

    async def _start(self, part: Part) -> None:
        await asyncio.sleep(self._draw.uniform(0, PAUSE_MAX_S))
        await part.start()
        await self._fleet.serving(part)
