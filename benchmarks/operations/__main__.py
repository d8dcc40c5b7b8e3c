"""Does an operator see it? Every panel, rule and alert with a real Prometheus, beside a service under load and faults.

python -m benchmarks.operations
"""

from __future__ import annotations

import argparse
import asyncio
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from app.queue.queue import Queue
from benchmarks import report
from benchmarks.chaos.fleet import fleet
from benchmarks.operations import prometheus
from benchmarks.operations.faults import FAULTS, QUEUE_LIMIT, Fault, Scene, small_disk
from benchmarks.operations.load import CATALOG, Load
from benchmarks.operations.panels import PanelData, plot, query_panels

LOAD_S = 45.0  # before the first fault: longer than every window
FIRE_S, CLEAR_S = 180.0, 240.0
SETTINGS = {
    "NAG_LEASE_S": "4", "NAG_MAX_ATTEMPTS": "1", "NAG_BATCH_BUDGET": "fixed", "NAG_BATCH_SIZE": "4",
    "NAG_QUEUE_LIMIT": str(QUEUE_LIMIT), "NAG_QUEUE_LIMIT_PER_MODEL": str(QUEUE_LIMIT), "NAG_WARM": "shapes-flux",
}  # fmt: skip


@dataclass
class Story:
    begin_s: float = 0.0
    end_s: float = 0.0
    quiet: set[str] = field(default_factory=set)  # alerts that fired before any fault
    fired: dict[str, tuple[str, float, float]] = field(default_factory=dict)  # by alert: fault, s to fire, s to clear
    marks: list[tuple[float, str]] = field(default_factory=list)
    panels: list[PanelData] = field(default_factory=list)
    rules: dict[str, int] = field(default_factory=dict)  # recording rules, by how many series they had
    targets: int = 0
    skipped: list[str] = field(default_factory=list)

    @property
    def failures(self) -> list[str]:
        """What is not as it should be."""
        wanted = [alert for fault in FAULTS.values() if fault.what not in self.skipped for alert in fault.alerts]
        return [
            *(f"{alert} fired before its fault" for alert in sorted(self.quiet)),
            *(f"{alert} did not fire and clear" for alert in wanted if alert not in self.fired),
            *(f"{a.dashboard}: {a.title}: no data: {e}" for a in self.panels if not a.needs_gpu for e in a.empty),
            *(f"{rule}: no data" for rule, series in self.rules.items() if not series),
        ]


def run(folder: Path, executable: str, seed: int) -> Story:
    """Told to end before its end, what it started is ended first."""

    async def told() -> Story:
        task = asyncio.current_task()
        assert task is not None
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)
        return await tell(folder, executable, seed)

    return asyncio.run(told())


async def tell(folder: Path, executable: str, seed: int) -> Story:
    story = Story()
    (folder / "models.toml").write_text(CATALOG)
    settings = SETTINGS | {"NAG_CATALOG": str(folder / "models.toml")}
    with small_disk(folder / "data") as disk:
        async with fleet(folder, settings, [{}, {}], fsync="everysec") as service:
            apis = [api.url for api in service.apis]
            queue, load = Queue.connect(service.settings), Load(apis, seed)
            scene = Scene(service, load, queue, disk)
            hosts = [url.removeprefix("http://") for url in apis]
            async with prometheus.running(executable, folder / "prometheus", hosts) as seen:
                loading = asyncio.create_task(load.keep())
                story.begin_s = time.time()
                await asyncio.sleep(LOAD_S)
                story.quiet = await seen.firing()
                story.targets = sum(target["health"] == "up" for target in await seen.targets())
                load.clients = 2
                for fault in FAULTS.values():
                    if fault.what == "disk filled" and disk is None:
                        story.skipped.append(fault.what)
                        continue
                    await _make(fault, scene, seen, story)
                story.end_s = time.time()
                loading.cancel()
                await asyncio.wait([loading])
                story.panels = await query_panels(seen, story.begin_s, story.end_s)
                for rule in await seen.rules():
                    if rule["type"] == "recording":
                        history = await seen.history(rule["name"], story.begin_s, story.end_s, 5)
                        story.rules[rule["name"]] = len(history)
            await load.http.aclose()
            await queue.close()
    return story


async def _make(fault: Fault, scene: Scene, seen: prometheus.Prometheus, story: Story) -> None:
    """Causes the fault until its alerts fire, then waits without it until they are clear."""
    await asyncio.gather(*(_until(seen, alert, False, CLEAR_S) for alert in fault.alerts))
    begun_s = time.time()
    story.marks.append((begun_s, fault.what))
    async with fault.made(scene):
        fired = await asyncio.gather(*(_until(seen, alert, True, FIRE_S) for alert in fault.alerts))
        healed_s = time.time()
    cleared = await asyncio.gather(*(_until(seen, alert, False, CLEAR_S) for alert in fault.alerts))
    for alert, fired_at_s, cleared_at_s in zip(fault.alerts, fired, cleared, strict=True):
        took_s = fired_at_s - begun_s, cleared_at_s - healed_s
        story.fired[alert] = fault.what, *took_s
        print(f"{alert}: {fault.what}, fired after {took_s[0]:.0f} s, cleared after {took_s[1]:.0f} s", flush=True)


async def _until(seen: prometheus.Prometheus, alert: str, fires: bool, most_s: float) -> float:
    """Returns the time at which the alert fires, or no longer does. Raises TimeoutError."""
    async with asyncio.timeout(most_s):
        while (alert in await seen.firing()) != fires:  # noqa: ASYNC110 - Prometheus tells nobody
            await asyncio.sleep(0.2)
    return time.time()


def publish(story: Story, seed: int) -> Sequence[Path]:
    """Writes the table, and one image per dashboard."""
    minute = prometheus.MINUTE_S
    rows = [
        [alert, fault, f"{fired_s:.0f}", f"{cleared_s:.0f}"]
        for alert, (fault, fired_s, cleared_s) in story.fired.items()
    ]
    queries = sum(len(panel.empty) == 0 for panel in story.panels)
    with_gpu = sum(panel.needs_gpu for panel in story.panels)
    title = (
        f"Alerts that fired and cleared with a real Prometheus, {story.targets} targets scraped each second; a minute "
        f"of the rules is {minute} s here. {queries} of {len(story.panels)} panels had data in all their queries "
        f"({with_gpu} need a GPU), {sum(n > 0 for n in story.rules.values())} of {len(story.rules)} recording rules. "
        f"Seed {seed}"
    )
    data = {
        "alerts": story.fired,
        "panels": {f"{panel.dashboard}: {panel.title}": len(panel.series) for panel in story.panels},
        "recording_rules": story.rules,
        "skipped": story.skipped,
        "seconds": round(story.end_s - story.begin_s),
    }
    columns = ("alert", "fault", "fired after (s)", "cleared after healing began (s)")
    report.write("operations", title, columns, rows, data, report.machine())
    return plot(story.panels, story.begin_s, story.marks, report.RESULTS)


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.operations", description=__doc__)
    parser.add_argument("--seed", type=int, default=7)
    arguments = parser.parse_args()
    executable = prometheus.find()
    if executable is None:
        print("no prometheus on the PATH (Debian: apt-get install prometheus)", file=sys.stderr)
        return 2
    folder = Path(tempfile.mkdtemp(prefix="nag-operations-"))
    print(f"logs in {folder}", flush=True)
    story = run(folder, executable, arguments.seed)
    for path in publish(story, arguments.seed):
        print(path)
    print("\n".join(story.failures) or "nothing is missing")
    if not story.failures:
        shutil.rmtree(folder)
    return 1 if story.failures else 0


if __name__ == "__main__":
    sys.exit(main())
