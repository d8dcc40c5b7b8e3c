"""Structured logging: one line per event, `time level component event key=value …`; never a prompt."""

from __future__ import annotations

import json
import logging
import re
import sys
import time
from typing import Any

__all__ = ["Log", "configure"]


#: An API key, which no log line may show.
API_KEY = re.compile(r"nag_[A-Za-z0-9_-]{43}(?![A-Za-z0-9_-])")


class _Formatter(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        clock = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created))
        line = f"{clock}.{int(record.msecs):03d}Z {record.levelname.lower():7} {record.name} {record.getMessage()}"
        if record.exc_info:
            line += f" exception={json.dumps(self.formatException(record.exc_info))}"
        return API_KEY.sub("nag_…", line.replace("\n", "\\n"))


def configure(level: str) -> None:
    """Sends every log record of this process to stderr as one line. `level` is settings.log_level."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_Formatter())
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level.upper())


class Log:
    """A component's log: `Log("queue").info("job_claimed", job=job.id, attempts=1)`."""

    def __init__(self, component: str) -> None:
        self._logger = logging.getLogger(f"nag.{component}")

    def debug(self, event: str, **fields: Any) -> None:
        """Logs an event that helps to find a fault."""
        self._write(logging.DEBUG, event, fields)

    def info(self, event: str, **fields: Any) -> None:
        """Logs a change of state."""
        self._write(logging.INFO, event, fields)

    def warning(self, event: str, **fields: Any) -> None:
        """Logs a fault that the service recovered from."""
        self._write(logging.WARNING, event, fields)

    def error(self, event: str, **fields: Any) -> None:
        """Logs an error that affected a user or a job."""
        self._write(logging.ERROR, event, fields)

    def _write(self, level: int, event: str, fields: dict[str, Any]) -> None:
        if self._logger.isEnabledFor(level):
            self._logger.log(
                level, "%s", " ".join([event, *(f"{key}={_text(value)}" for key, value in fields.items())])
            )


def _text(value: Any) -> str:
    """Formats a value on one line: bare if it is a single word, else quoted as JSON."""
    text = f"{value:.6g}" if isinstance(value, float) else str(value)
    return (
        text if text and text.isprintable() and not any(character in text for character in ' "=') else json.dumps(text)
    )
