"""A real Prometheus for a short while: the API's panels have data, and an alert fires and clears."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path

import pytest

from app.queue.queue import Queue
from app.settings import Settings
from app.worker.metrics_server import serve_metrics
from app.worker.recorder import Event, Recorder
from benchmarks.operations import prometheus
from benchmarks.operations.panels import dashboard_panels, plot, query_panels
from tests.api.support import serving, working
from tests.limits import HANG_S

pytestmark = pytest.mark.slow  # starts Prometheus

EXECUTABLE = prometheus.find()
#: Of what only a fault, or a real worker's calls, bring forth.
WITHOUT_DATA = {"Faults", "GPU memory", "GPU utilization"}


def test_minutes_become_seconds_and_names_stay() -> None:
    rules = "- record: nag:jobs:rate5m\n  expr: rate(x[5m])\n  for: 2m\n  expr: nag:queue_oldest_seconds > 300"
    assert prometheus.hastened(rules) == (
        "- record: nag:jobs:rate5m\n  expr: rate(x[20s])\n  for: 8s\n  expr: nag:queue_oldest_seconds > 20"
    )


@pytest.mark.skipif(EXECUTABLE is None, reason="Prometheus is not installed")
async def test_prometheus_sees_the_service(settings: Settings, queue: Queue, tmp_path: Path) -> None:
    recorder = Recorder()
    begun_s = time.time()
    async with serving(settings) as api:
        target = f"{api.base_url.host}:{api.base_url.port}"
        async with prometheus.running(str(EXECUTABLE), tmp_path / "prometheus", [target]) as seen:
            with serve_metrics(recorder.registry, settings) as address:
                async with working(queue, settings) as worker, asyncio.timeout(HANG_S):
                    await queue.registry.announce(worker.name, ["shapes-flux"], 60, metrics=address)
                    while {
                        panel.title for panel in await query_panels(seen, begun_s, time.time()) if panel.empty
                    } > WITHOUT_DATA:
                        for body in ({"prompt": "a"}, {"prompt": "fail"}, {"prompt": "a", "negative_prompt": "b"}):
                            await api.post("/v1/jobs", json=body, headers={"prefer": "wait=10"})
                        _a_worker_s_doings(recorder)
                        await asyncio.sleep(0.5)
                    assert await seen.firing() == set()
                    up = {each["labels"]["job"] for each in await seen.targets() if each["health"] == "up"}
                    assert up == {"nag-api", "nag-worker"}
            async with asyncio.timeout(HANG_S):
                while "NagNoWorker" not in await seen.firing():  # noqa: ASYNC110 - Prometheus tells nobody
                    await asyncio.sleep(0.2)
                await queue.registry.announce("another", ["shapes-flux"], 60)
                while "NagNoWorker" in await seen.firing():  # noqa: ASYNC110
                    await asyncio.sleep(0.2)
            asked = await query_panels(seen, begun_s, time.time())
    assert len(asked) == len(list(dashboard_panels()))
    written = plot(asked, begun_s, [(begun_s, "begin")], tmp_path)
    assert [path.read_bytes()[:4] for path in written] == [b"\x89PNG"] * 3


def _a_worker_s_doings(recorder: Recorder) -> None:
    """As a real one records them."""
    for guidance in ("plain", "nag"):
        recorder.denoiser_call("shapes-flux", guidance, images=2, rows=2, pixels=2 * 64 * 64, seconds=0.02)
    recorder.begin_images("shapes-flux", 1)
    recorder.first_step("shapes-flux", 0.01)
    recorder.image("shapes-flux", encode_ms=5.0, denoise_ms=80.0, decode_ms=10.0)
    for event in (Event.PROMPT_HIT, Event.PROMPT_MISS):
        recorder.add(event, "shapes-flux")
    recorder.loaded("shapes-flux", 1.0)
