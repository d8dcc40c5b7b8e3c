"""The service's metrics, declared in `definitions`.

The end of a job is counted in Redis, by the same script that writes it (`queue/scripts/counts.lua`): once in the whole
service, whichever process dies. The work of a process is counted in that process.
"""

from app.metrics.api import Metrics

__all__ = ["Metrics"]
