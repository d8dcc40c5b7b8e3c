"""Loads and runs the Lua scripts of this folder. Each one is an atomic transition of the queue."""

from __future__ import annotations

import json
import re
from collections.abc import Set
from pathlib import Path
from typing import Any, Final

from redis.asyncio import Redis

from app.metrics import definitions
from app.metrics.definitions import Kind, Metric, Source
from app.queue.keys import Keys

__all__ = ["Scripts"]

_FOLDER = Path(__file__).parent
SHARED = ("counts", "common")  # put before each of the others
#: They free memory or report work, so they run on a server at its maxmemory, too. The others, which need memory or only
#: read, are without such a header: with one, Redis would refuse to read as well while it cannot write to its disk.
AT_MAXMEMORY = (
    "announce", "cancel", "claim", "dead_drop", "delete", "expire", "fail", "finish", "forget", "heartbeat",
    "lora_drop", "lora_forget", "orphan_drop", "reap", "release", "repair_indexes", "retire",
    "slot_acquire", "slot_release", "webhook_claim", "webhook_end",
)  # fmt: skip


class Scripts:
    """Runs scripts by their names. `retention_ms` is how long they keep a job that has ended."""

    def __init__(self, redis: Redis, keys: Keys, retention_ms: int) -> None:
        self._route = [keys.LEASES]  # every other key that a script uses has the same hash tag
        shared = "\n".join((_FOLDER / f"{name}.lua").read_text() for name in SHARED)
        header = f"{keys.lua_header()}\n{_metrics_header()}\nlocal RETENTION_MS = {retention_ms}\n{shared}"
        texts = {path.stem: path.read_text() for path in _FOLDER.glob("*.lua") if path.stem not in SHARED}
        self._scripts = {
            name: redis.register_script(_shebang(name) + f"{header}\n{text}") for name, text in texts.items()
        }
        #: Every command that a script calls by its name.
        self.commands: Final = frozenset(re.findall(r"redis\.call\('([A-Z]+)'", "\n".join([shared, *texts.values()])))

    @property
    def names(self) -> Set[str]:
        return self._scripts.keys()

    async def run(self, name: str, /, **arguments: Any) -> Any:
        """Runs a script and returns its answer. Raises redis.exceptions.RedisError.

        The script finds the arguments by their names in its table `args`; those that are None are left out.
        """
        present = {key: value for key, value in arguments.items() if value is not None}
        text = json.dumps(present, ensure_ascii=False, separators=(",", ":"))
        return await self._scripts[name](keys=self._route, args=[text])


def _shebang(name: str) -> str:
    return "#!lua flags=allow-oom\n" if name in AT_MAXMEMORY else ""


def _metrics_header() -> str:
    """Returns the metrics counted in Redis as a Lua table by their Python name."""
    counted = {
        name: metric
        for name, metric in vars(definitions).items()
        if isinstance(metric, Metric) and metric.source is Source.SERVICE and metric.kind is not Kind.GAUGE
    }
    entries = (
        f"{name} = {{ name = '{metric.name}', buckets = {{ {', '.join(map(str, metric.buckets))} }} }}"
        for name, metric in counted.items()
    )
    return f"local METRICS = {{ {', '.join(entries)} }}"
