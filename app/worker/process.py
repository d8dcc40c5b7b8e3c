"""A worker as a process: its signals, its metrics and traces, and its end."""

from __future__ import annotations

import asyncio
import os
import signal
from typing import NoReturn

from app import logs
from app.catalog import Catalog
from app.devices import devices_of_worker, show_devices
from app.process_exit import exit_at_once
from app.queue.queue import Queue
from app.settings import Settings
from app.tracing import Tracing
from app.worker.metrics_server import serve_metrics
from app.worker.models.served_models import ServedModels
from app.worker.protocol import Engine
from app.worker.recorder import Recorder
from app.worker.worker import Worker

__all__ = ["main"]

#: Turns of the loop in which a thread of GNU's OpenMP waits before it sleeps, by default 300,000. On a quiet machine
#: images are as fast with fewer; with 1,000 they are slower.
SPIN_COUNT = 10_000


def main(settings: Settings, place: int = 0) -> NoReturn:
    """Serves the catalog's models until SIGTERM or SIGINT, then ends the process.

    place: of this rank among those of this machine. Of a worker over several devices, only the first rank of the first
    machine serves; the others follow it.

    Threads may still load or call a model, download or store. A process that ends meanwhile aborts or waits for them,
    so this one does not give them the time. Raises CatalogError, RequirementError, TracingError.
    """
    logs.configure(settings.log_level)
    if place:
        _follow(settings, place)
    catalog = Catalog.load(settings)
    if devices := devices_of_worker(settings, catalog.models.values()):
        settings = settings.model_copy(update={"devices": devices})
    if settings.node:
        _follow(settings, place)
    exit_at_once(asyncio.run(_serve(settings, catalog)))


def _follow(settings: Settings, place: int) -> NoReturn:
    show_devices(settings.devices or ())
    from app.worker.devices.follower import follow

    follow(settings, place)


async def _serve(settings: Settings, catalog: Catalog) -> int:
    """Returns the exit code."""

    def make_engine(recorder: Recorder) -> Engine:
        # Threads of torch on a CPU wait for each other in a loop, by default for milliseconds; the API needs that core.
        os.environ.setdefault("GOMP_SPINCOUNT", str(SPIN_COUNT))
        show_devices(settings.devices or ())
        # Here, so that a signal is heard while torch is imported.
        from app.loading.lora_files import LoraFiles
        from app.worker.engine.torch_engine import TorchEngine

        return TorchEngine(catalog, settings, recorder, LoraFiles(settings, catalog))

    tracing = Tracing.open(settings, "worker")
    queue = Queue.connect(settings)
    worker = Worker(settings, queue, ServedModels.chosen(catalog, settings), make_engine)
    worker.recorder.tracing = tracing
    for signal_number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(signal_number, worker.stop)
    try:
        await Queue.check(settings)
        with serve_metrics(worker.recorder.registry, settings) as worker.metrics_at:
            return await worker.run()
    finally:
        await queue.close()
        if tracing is not None:
            await asyncio.to_thread(tracing.close)
