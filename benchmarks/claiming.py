"""What choosing the next jobs costs while 10,000 wait, in ms.

On an embedded Valkey of its own, three queues: all jobs alike; 300 sizes in 3 priorities; 100 tenants of 3 lanes each.
Printed are the two scripts as the server counts them (they are what holds everybody else up), the plan, and a whole
round of reading, planning and claiming as the worker waits for it; beside it two bare round trips to that server.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from statistics import median
from time import perf_counter

from redis import Redis
from tqdm import tqdm

from app.jobs import Generation, Job, Priority
from app.queue import embedded
from app.queue.queue import Queue
from app.settings import Settings
from app.worker.jobs.planner import Rules, plan
from app.worker.protocol import Room
from benchmarks import report

MODEL = "shapes-flux"
SIDE_PX = 64
ROOM = Room(free=8 * SIDE_PX**2, whole=8 * SIDE_PX**2, jobs=0)
RULES = Rules(oldest_wait_ms=30_000)
COLUMNS = (
    "queue", "lanes seen", "jobs seen", "waiting.lua", "plan", "claim.lua", "round, median", "round, p95", "2 pings",
)  # fmt: skip
#: What is queued, by name: a job's number to its tenant, its priority's rank and a width.
QUEUES: dict[str, Callable[[int], tuple[str, int, int]]] = {
    "all alike": lambda _: ("default", 1, SIDE_PX),
    "300 sizes, 3 priorities": lambda i: ("default", i % 3, SIDE_PX * (1 + i // 3 % 300)),
    "100 tenants, 3 lanes each": lambda i: (f"t{i % 100}", i // 100 % 3, SIDE_PX * (1 + i // 300 % 3)),
}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--jobs", type=int, default=10_000)
    parser.add_argument("--rounds", type=int, default=200)
    arguments = parser.parse_args()
    rows, data = [], {}
    for name, kind in QUEUES.items():
        with _server() as settings:
            seen, found = asyncio.run(_measured(settings, kind, arguments.jobs, arguments.rounds))
        rows.append([name, *map(str, seen), *(f"{value:.2f}" for value in found)])
        data[name] = found
    title = f"Choosing 8 jobs among {arguments.jobs} waiting jobs, {arguments.rounds} rounds, ms"
    report.write("claiming", title, COLUMNS, rows, data, report.machine())
    return 0


async def _measured(
    settings: Settings, kind: Callable[[int], tuple[str, int, int]], jobs: int, rounds: int
) -> tuple[tuple[int, int], list[float]]:
    queue = Queue.connect(settings)
    for i in tqdm(range(jobs), desc="queueing", leave=False, disable=None):
        await queue.submit(_job(i, *kind(i)))
    plans_ms, rounds_ms, pings_ms, server_ms = [], [], [], []
    with Redis.from_url(embedded.url(settings)) as redis:
        for _ in range(rounds):
            redis.config_resetstat()
            begun_s = perf_counter()
            waiting = await queue.snapshot(MODEL)
            read_s = perf_counter()
            planned = plan(waiting.jobs, waiting.turns, ROOM, waiting.now_ms, RULES)
            chosen_s = perf_counter()
            reading_ms = _scripts_ms(redis)
            claiming_s = perf_counter()
            assert await queue.claim("w", MODEL, planned.ids, planned.turns)
            claimed_s = perf_counter()
            server_ms.append((reading_ms, _scripts_ms(redis) - reading_ms))
            await queue.ping()
            await queue.ping()
            pings_ms.append((perf_counter() - claimed_s) * 1000)
            plans_ms.append((chosen_s - read_s) * 1000)
            rounds_ms.append((chosen_s - begun_s + claimed_s - claiming_s) * 1000)
    await queue.close()
    lanes = {(job.tenant, job.priority) for job in waiting.jobs}
    waiting_ms, claim_ms = (median(times_ms) for times_ms in zip(*server_ms, strict=True))
    p95_ms = sorted(rounds_ms)[int(0.95 * rounds)]
    found = [waiting_ms, median(plans_ms), claim_ms, median(rounds_ms), p95_ms, median(pings_ms)]
    return (len(lanes), len(waiting.jobs)), found


def _scripts_ms(redis: Redis) -> float:
    return float(redis.info("commandstats")["cmdstat_evalsha"]["usec"]) / 1000


def _job(number: int, tenant: str, rank: int, width: int) -> Job:
    request = Generation(
        model=MODEL, prompt="a small red circle", negative_prompt=None, seed=number, num_inference_steps=4,
        guidance_scale=1.0, width=width, height=SIDE_PX, n=1, output_format="png", output_compression=100, nag=None,
    )  # fmt: skip
    return Job(id=f"job_{number}", request=request, tenant=tenant, priority=list(Priority)[rank])


@contextmanager
def _server() -> Iterator[Settings]:
    with tempfile.TemporaryDirectory(prefix="nag-bench-") as folder:
        settings = Settings(data_dir=Path(folder), redis_url=None, queue_limit=10**6, queue_limit_per_model=10**6)
        server = embedded.start(settings)
        try:
            yield settings
        finally:
            server.stop()


if __name__ == "__main__":
    sys.exit(main())
