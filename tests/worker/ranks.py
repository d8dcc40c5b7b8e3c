"""Engines of several ranks, processes on one CPU."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch.distributed as dist

from app.catalog import Catalog, Model
from app.jobs import Job
from app.settings import Settings
from app.worker.engine.torch_engine import TorchEngine
from app.worker.recorder import Recorder

__all__ = ["KNOWN", "LORAS", "SplitModel", "of_model", "started_engine"]

#: An embedded model, and what its entry has beside its own settings.
SplitModel = tuple[str, dict[str, Any]]
KNOWN = Catalog.load(Settings()).models
LORAS = {name: Path(__file__).parents[2] / f"app/builtin/loras/{name}.safetensors" for name in ("dotted", "underlined")}


class _LoraFiles:
    def path(self, lora: str, entry: Model) -> Path:
        return LORAS[lora]


@contextmanager
def started_engine(ranks: int, split: Mapping[str, SplitModel], *others: Model) -> Iterator[TorchEngine]:
    """A started engine with models that are split over all ranks, one that is not, and further entries."""
    settings = Settings(device="cpu", devices=tuple(range(ranks)), batch_size=4, batch_budget="fixed")
    models = {name: KNOWN[base].model_copy(update={"id": name, **changes}) for name, (base, changes) in split.items()}
    models |= {entry.id: entry for entry in (KNOWN["shapes-flux"], *others)}
    catalog = Catalog.load(settings).model_copy(update={"models": models})
    engine = TorchEngine(catalog, settings, Recorder(), _LoraFiles())
    engine.start()
    try:
        yield engine
    finally:
        engine.close()
        dist.destroy_process_group()


def of_model(jobs: list[Job], model: str) -> list[Job]:
    """The same jobs for another model."""
    return [replace(job, request=replace(job.request, model=model)) for job in jobs]
