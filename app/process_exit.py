"""The end of a process whose threads cannot be stopped."""

from __future__ import annotations

import logging
import os
import sys
from typing import NoReturn

__all__ = ["exit_at_once"]


def exit_at_once(code: int) -> NoReturn:
    """Ends the process without waiting for its threads, as the interpreter would. Logs and output are flushed."""
    logging.shutdown()
    sys.stdout.flush()
    os._exit(code)
