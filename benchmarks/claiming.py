"""What it costs to choose the next batch while 10,000 jobs wait, in ms.

On an embedded Valkey of its own. Three queues: all jobs alike; 300 sizes and 3 priorities of one tenant; 100 tenants
with 9 lanes each. Of each round: reading what waits (the script alone, as the server counts it, and the whole call),
the plan, and the claim of the batch.
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
from rich.console import Console
from rich.table import Table
from tqdm import tqdm

from app.jobs import Generation, Job, Priority
from app.queue import embedded
from app.queue.queue import Queue
from app.settings import Settings
from app.worker.claim import rules
from app.worker.planner import plan

MODEL = "shapes-flux"
SIDE_PX = 64
#: What is queued, by name: a job's number to its tenant, its priority's rank and a width.
QUEUES: dict[str, Callable[[int], tuple[str, int, int]]] = {
    "all alike": lambda i: ("default", 1, SIDE_PX),
    "300 sizes, 3 priorities": lambda i: ("default", i % 3, SIDE_PX * (1 + i // 3 % 300)),
    "100 tenants, 9 lanes each": lambda i: (f"t{i % 100}", i // 100 % 3, SIDE_PX * (1 + i // 300 % 3)),
}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--jobs", type=int, default=10_000)
    parser.add_argument("--rounds", type=int, default=100)
    arguments = parser.parse_args()
    table = Table("queue", "lanes seen", "jobs seen", "read (server)", "read", "plan", "claim", "all, median", "all, worst")
    for name in QUEUES:
        with _server() as settings:
            table.add_row(name, *asyncio.run(_measure(settings, QUEUES[name], arguments.jobs, arguments.rounds)))
    Console(width=120).print(table)
    return 0


async def _measure(
    settings: Settings, kind: Callable[[int], tuple[str, int, int]], jobs: int, rounds: int
) -> tuple[str, ...]:
    queue = Queue.connect(settings)
    for i in tqdm(range(jobs), leave=False, disable=None):
        await queue.submit(_job(i, *kind(i)))
    times_ms: list[tuple[float, float, float]] = []
    with Redis.from_url(embedded.url(settings)) as redis:
        redis.config_resetstat()
        for _ in range(rounds):
            begun = perf_counter()
            waiting = await queue.waiting(MODEL)
            read = perf_counter()
            planned = plan(waiting.candidates, waiting.turns, 8 * SIDE_PX**2, waiting.now_ms, rules(settings))
            chosen = perf_counter()
            assert await queue.claim("w", MODEL, planned.ids, planned.turns)
            claimed = perf_counter()
            times_ms.append(tuple(1000 * each for each in (read - begun, chosen - read, claimed - chosen)))  # type: ignore[arg-type]
        redis.config_resetstat()
        for _ in range(rounds):
            waiting = await queue.waiting(MODEL)
        server_ms = redis.info("commandstats")["cmdstat_evalsha"]["usec_per_call"] / 1000
    await queue.close()
    lanes = {(each.tenant, each.priority, each.batch_key) for each in waiting.candidates}
    whole = [sum(each) for each in times_ms]
    columns = [server_ms, *(median(each) for each in zip(*times_ms, strict=True)), median(whole), max(whole)]
    return str(len(lanes)), str(len(waiting.candidates)), *(f"{each:.2f}" for each in columns)


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
