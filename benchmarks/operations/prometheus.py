"""A real Prometheus with the rules of docker/prometheus, hastened so that minutes are seconds."""

from __future__ import annotations

import asyncio
import contextlib
import re
import shutil
import socket
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any

import httpx
import yaml

__all__ = ["MINUTE_S", "WINDOW", "Prometheus", "find", "hastened", "running"]

RULES = Path(__file__).parents[2] / "docker" / "prometheus"
MINUTE_S = 4  # what a minute of the rules lasts here
WINDOW = f"{5 * MINUTE_S}s"
WAIT_S = 300 / 60 * MINUTE_S  # the threshold of NagQueueWaitLong
START_S = 60.0


def find() -> str | None:
    return shutil.which("prometheus")


def hastened(rules: str) -> str:
    """Returns the same rules where each window, each `for` and the one threshold that is a time last as much less."""
    rules = re.sub(r"\[(\d+)m\]", lambda found: f"[{int(found[1]) * MINUTE_S}s]", rules)
    rules = re.sub(r"for: (\d+)m", lambda found: f"for: {int(found[1]) * MINUTE_S}s", rules)
    return rules.replace("nag:queue_oldest_seconds > 300", f"nag:queue_oldest_seconds > {WAIT_S:g}")


class Prometheus:
    """A running one."""

    def __init__(self, url: str, http: httpx.AsyncClient) -> None:
        self.url = url
        self._http = http

    async def query(self, expr: str) -> list[Any]:
        """Returns the series that an expression has now."""
        return list((await self._get("query", query=expr))["result"])

    async def history(self, expr: str, begin_s: float, end_s: float, step_s: float) -> list[Any]:
        """Its series from one Unix time to another."""
        answer = await self._get("query_range", query=expr, start=begin_s, end=end_s, step=step_s)
        return list(answer["result"])

    async def firing(self) -> set[str]:
        """Returns the names of the alerts that fire now."""
        alerts = (await self._get("alerts"))["alerts"]
        return {alert["labels"]["alertname"] for alert in alerts if alert["state"] == "firing"}

    async def rules(self) -> list[dict[str, Any]]:
        groups = (await self._get("rules"))["groups"]
        return [rule for group in groups for rule in group["rules"]]

    async def targets(self) -> list[dict[str, Any]]:
        return list((await self._get("targets", state="active"))["activeTargets"])

    async def _get(self, what: str, **params: Any) -> dict[str, Any]:
        answer = await self._http.get(f"{self.url}/api/v1/{what}", params=params)
        data: dict[str, Any] = answer.raise_for_status().json()["data"]
        return data


@contextlib.asynccontextmanager
async def running(executable: str, folder: Path, apis: Sequence[str]) -> AsyncIterator[Prometheus]:
    """One that scrapes the APIs at these host:port, and the workers they name. Raises TimeoutError."""
    _configure(folder, apis)
    address = f"127.0.0.1:{_free_port()}"
    with (folder / "prometheus.log").open("wb") as log:
        process = await asyncio.create_subprocess_exec(
            executable, "--config.file=prometheus.yml", "--storage.tsdb.path=data", f"--web.listen-address={address}",
            "--query.lookback-delta=5s", cwd=folder, stdin=asyncio.subprocess.DEVNULL, stdout=log, stderr=log,
            start_new_session=True,
        )  # fmt: skip
    try:
        async with httpx.AsyncClient(trust_env=False, timeout=30) as http, asyncio.timeout(None) as patience:
            patience.reschedule(asyncio.get_running_loop().time() + START_S)
            while not await _ready(http, f"http://{address}"):  # noqa: ASYNC110 - it is another process
                await asyncio.sleep(0.1)
            patience.reschedule(None)
            yield Prometheus(f"http://{address}", http)
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.terminate()
        await process.wait()


def _configure(folder: Path, apis: Sequence[str]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    config = yaml.safe_load((RULES / "prometheus.yml").read_text())
    config["global"] = {"scrape_interval": "1s", "evaluation_interval": "1s"}
    for name in ("recording.yml", "alerts.yml"):
        (folder / name).write_text(hastened((RULES / name).read_text()))
    config["rule_files"] = ["recording.yml", "alerts.yml"]
    sources: dict[str, dict[str, Any]] = {
        "nag-api": {"static_configs": [{"targets": list(apis)}]},
        "nag-worker": {"http_sd_configs": [{"url": f"http://{apis[0]}/metrics/workers", "refresh_interval": "1s"}]},
    }
    config["scrape_configs"] = [
        {"job_name": scrape["job_name"]} | sources[scrape["job_name"]] for scrape in config["scrape_configs"]
    ]
    (folder / "prometheus.yml").write_text(yaml.safe_dump(config))


async def _ready(http: httpx.AsyncClient, url: str) -> bool:
    with contextlib.suppress(httpx.TransportError):
        return (await http.get(f"{url}/-/ready")).is_success
    return False


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])
