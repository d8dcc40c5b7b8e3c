"""Structured logging: one line an event, `time level component event key=value …`; never a prompt."""

from __future__ import annotations

import json
import logging
import re
import sys
import time
from typing import Any

__all__ = ["Log", "configure"]


#: Wherever one came from: no line shows a key.
API_KEY = re.compile(r"nag_[A-Za-z0-9_-]{43}(?![A-Za-z0-9_-])")


class _Formatter(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        clock = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created))
        line = f"{clock}.{int(record.msecs):03d}Z {record.levelname.lower():7} {record.name} {record.getMessage()}"
        if record.exc_info:
            line += f" exception={json.dumps(self.formatException(record.exc_info))}"
        return API_KEY.sub("nag_…", line.replace("\n", "\\n"))


def configure(level: str) -> None:
    """Send every log line of this process to stderr, one line each. `level` is settings.log_level."""
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
        """Something worth a line only while searching for a fault."""
        self._write(logging.DEBUG, event, fields)

    def info(self, event: str, **fields: Any) -> None:
        """A transition."""
        self._write(logging.INFO, event, fields)

    def warning(self, event: str, **fields: Any) -> None:
        """Something went wrong and the service dealt with it."""
        self._write(logging.WARNING, event, fields)

    def error(self, event: str, **fields: Any) -> None:
        """Something went wrong and somebody lost by it."""
        self._write(logging.ERROR, event, fields)

    def _write(self, level: int, event: str, fields: dict[str, Any]) -> None:
        if self._logger.isEnabledFor(level):
            self._logger.log(level, "%s", " ".join([event, *(f"{key}={_text(each)}" for key, each in fields.items())]))


def _text(value: Any) -> str:
    """A value on one line: bare when it is a single word, else quoted as JSON."""
    text = f"{value:.6g}" if isinstance(value, float) else str(value)
    return text if text and text.isprintable() and not any(each in text for each in ' "=') else json.dumps(text)
