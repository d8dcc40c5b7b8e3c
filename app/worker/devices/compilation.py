"""Calls of denoisers that torch compiles: how many graphs each may have, and the report of one that has too many."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch

from app.logs import Log

__all__ = ["compiled_calls"]

#: Graphs of one function, of all models together, beyond which torch calls it without compiling; torch allows 8.
#: A denoiser has one each for plain and guided calls, for one row and several, and for first and later steps of cross
#: attention, each for fixed sizes at first and for any sizes after that.
GRAPHS_MAX = 64
#: The logger by which torch says that a function has reached the limit, and how it begins.
LOGGER, MESSAGE = "torch._dynamo.convert_frame", "torch._dynamo hit config."

_log = Log("worker")


@contextmanager
def compiled_calls(model: str, on_limit: Callable[[], None]) -> Iterator[None]:
    """Raises torch's limit of graphs for calls of this thread, logs a function that reaches it, and calls `on_limit`.

    From then on torch runs the function's calls of further kinds without compiling, until the process restarts.
    """
    logger, handler, config = logging.getLogger(LOGGER), _LimitHandler(model, on_limit), torch._dynamo.config
    previous_limit = config.recompile_limit
    logger.addHandler(handler)
    config.recompile_limit = GRAPHS_MAX  # of this thread alone; torch's own `config.patch` keeps memory for each use
    try:
        yield
    finally:
        config.recompile_limit = previous_limit
        logger.removeHandler(handler)


class _LimitHandler(logging.Handler):
    def __init__(self, model: str, on_limit: Callable[[], None]) -> None:
        super().__init__(logging.WARNING)
        self.model, self.on_limit, self.thread = model, on_limit, threading.get_ident()

    def emit(self, record: logging.LogRecord) -> None:
        message = record.getMessage()
        if record.thread == self.thread and message.startswith(MESSAGE):
            _log.warning("recompile_limit_reached", model=self.model, graphs_max=GRAPHS_MAX, message=message)
            self.on_limit()
