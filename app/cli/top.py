"""`nag-server top`: queues, workers and errors, drawn again and again until Ctrl-C.

All is read from Redis, but the table of denoiser calls, which comes from the workers that can be reached from here.
"""

from __future__ import annotations

import argparse
import asyncio
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from redis.exceptions import RedisError
from rich.box import SIMPLE_HEAD
from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.table import Table
from rich.text import Text

from app.cli.client import ClientError
from app.cli.worker_metrics import WorkerMetrics, read_workers
from app.metrics import definitions as d
from app.metrics.prometheus_metrics import Labels
from app.metrics.service import PRIORITIES, QueueStats
from app.queue.queue import Queue
from app.queue.registry import ModelState
from app.queue.stats import QueueLoad
from app.settings import Settings

__all__ = ["Snapshot", "top", "view"]

ERRORS_SHOWN = 8
FIRST_S = 0.5  # rates need two looks; the first is not waited for as long as the others


@dataclass(frozen=True)
class Snapshot:
    """One look at the service."""

    at_s: float
    measures: QueueStats
    loads: Sequence[QueueLoad]
    workers: Mapping[str, Mapping[str, ModelState]]  # by name, the states of their models that are not cold
    metrics: Mapping[str, WorkerMetrics]  # of those workers that can be reached, by name


def top(arguments: argparse.Namespace, settings: Settings) -> int:
    """Raises ClientError without a queue."""
    try:
        return asyncio.run(_top(arguments, settings))
    except RedisError as exc:
        raise ClientError(f"the queue cannot be reached: {exc}") from exc


async def _top(arguments: argparse.Namespace, settings: Settings) -> int:
    console, queue = Console(), Queue.connect(settings)
    try:
        before = await _look(queue)
        await asyncio.sleep(arguments.every if arguments.once else min(arguments.every, FIRST_S))
        now = await _look(queue)
        if arguments.once:
            console.print(view(before, now))
            return 0
        with Live(view(before, now), console=console, auto_refresh=False, screen=console.is_terminal) as live:
            while True:
                await asyncio.sleep(arguments.every)
                before, now = now, await _look(queue)
                live.update(view(before, now), refresh=True)
    finally:
        await queue.close()


async def _look(queue: Queue) -> Snapshot:
    measures, metrics = await queue.stats(), await read_workers(await queue.registry.exporters())
    return Snapshot(time.monotonic(), measures, await queue.loads(), await queue.registry.states(), metrics)


def view(before: Snapshot, now: Snapshot) -> RenderableType:
    """Rates are those between the two."""
    return Group(_head(now), _models(before, now), _workers(now), _denoiser_calls(before, now), _errors(now))


def _head(now: Snapshot) -> Text:
    m = now.measures
    memory = f"redis {m.redis_bytes / 2**20:.0f} of {m.redis_max_bytes / 2**20:.0f} MiB"
    waiting, running = sum(m.waiting.values()), sum(m.running.values())
    text = f"{waiting} waiting, {running} at work, {len(now.workers)} workers, {m.dead} dead letters, {memory}"
    return Text(text, style="bold red" if not now.workers or m.dead else "bold")


def _models(before: Snapshot, now: Snapshot) -> Table:
    table = _table("models")
    table.add_column("model", overflow="fold")
    # Short enough, all together, for a terminal of 80 columns; what waits is high, normal and low.
    for name in ("waiting", "oldest s", "at work", "warm on", "in/s", "done/s", "fail/s", "mean s", "wait s"):
        table.add_column(name, justify="right")
    m = now.measures
    for load in sorted(now.loads, key=lambda load: load.model):
        model = load.model
        waiting = [str(m.waiting.get((model, priority), 0)) for priority in PRIORITIES]
        oldest_s = max((m.oldest_s.get((model, priority), 0.0) for priority in PRIORITIES), default=0.0)
        rates = [
            _rate(before, now, d.JOBS_ACCEPTED, model, PRIORITIES),
            _rate(before, now, d.JOBS, model, ("completed",)),
            _rate(before, now, d.JOBS, model, ("failed", "expired")),
        ]
        wait_s = "" if load.wait_s is None else f"{load.wait_s:.1f}"
        table.add_row(
            model, "/".join(waiting), f"{oldest_s:.1f}", str(m.running.get(model, 0)), str(load.workers),
            *(f"{rate:.2f}" for rate in rates), _mean(before, now, model), wait_s,
        )  # fmt: skip
    return table


def _workers(now: Snapshot) -> Table:
    table = _table("workers")
    for name in ("worker", "jobs held", "models"):
        table.add_column(name, overflow="fold")
    for name, states in sorted(now.workers.items()):
        models = [_model(model, state) for model, state in states.items() if state.stage != "cold"]
        table.add_row(name, str(now.measures.held.get(name, 0)), ", ".join(models))
    return table


def _denoiser_calls(before: Snapshot, now: Snapshot) -> Table:
    table = _table("denoiser calls")
    for name in ("worker", "model"):
        table.add_column(name, overflow="fold")
    for name in ("images", "calls/s", "per call", "rows", "pre-empted/s", "first step s"):
        table.add_column(name, justify="right")
    past_s = max(1e-9, now.at_s - before.at_s)
    for worker, metrics in sorted(now.metrics.items()):
        earlier = before.metrics.get(worker, metrics)
        for model in metrics.models:
            calls, preemptions = (
                (metrics.value(name, model) - earlier.value(name, model)) / past_s
                for name in (f"{d.CALL_IMAGES.name}_count", d.PREEMPTIONS.name)
            )
            means = [
                metrics.mean_since(earlier, metric, model) for metric in (d.CALL_IMAGES, d.CALL_ROWS, d.FIRST_STEP)
            ]
            images, rows, first_step_s = ("" if mean is None else f"{mean:.2f}" for mean in means)
            table.add_row(
                worker, model, f"{metrics.value(d.IN_FLIGHT.name, model):.0f}", f"{calls:.1f}", images, rows,
                f"{preemptions:.2f}", first_step_s,
            )  # fmt: skip
    return table


def _model(name: str, state: ModelState) -> str:
    """Returns a warm model by its name alone, another with its stage: `flux-dev downloading 12% of 33.7 GB`."""
    if state.stage == "warm":
        return name
    if not state.total_bytes:
        return f"{name} {state.stage}"
    return f"{name} {state.stage} {state.done_bytes / state.total_bytes:.0%} of {state.total_bytes / 1e9:.1f} GB"


def _errors(now: Snapshot) -> Table:
    table = _table("last errors")
    for name in ("at", "job", "model", "code"):
        table.add_column(name)
    for error in now.measures.last_errors[:ERRORS_SHOWN]:
        table.add_row(time.strftime("%H:%M:%S", time.localtime(error.at)), error.job, error.model, error.code)
    return table


def _table(title: str) -> Table:
    return Table(title=title, title_justify="left", expand=True, box=SIMPLE_HEAD, padding=(0, 0))


def _rate(before: Snapshot, now: Snapshot, metric: d.Metric, model: str, words: Sequence[str]) -> float:
    """Returns the rate per second of the series with any of these words as their second label."""

    def count(snapshot: Snapshot) -> float:
        values: Mapping[Labels, float] = snapshot.measures.counters.get(metric.name, {})
        return sum(values.get((model, word), 0.0) for word in words)

    return (count(now) - count(before)) / max(1e-9, now.at_s - before.at_s)


def _mean(before: Snapshot, now: Snapshot, model: str) -> str:
    """Returns the mean seconds from submission to end of the jobs completed between the two; '' if there are none."""

    def sums(snapshot: Snapshot) -> tuple[float, float]:
        met = snapshot.measures.histograms.get(d.E2E.name, {}).get((model,), {})
        return sum(value for bucket, value in met.items() if bucket != "sum"), met.get("sum", 0.0)

    (jobs, total_s), (jobs_before, total_before_s) = sums(now), sums(before)
    return f"{(total_s - total_before_s) / (jobs - jobs_before):.2f}" if jobs > jobs_before else ""
