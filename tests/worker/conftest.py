from __future__ import annotations

import pytest
import torch

from app.catalog import Catalog, Model
from app.settings import Settings
from app.worker import pipelines
from app.worker.engine import TorchEngine
from app.worker.recorder import Recorder

MODEL = "shapes-flux"


@pytest.fixture(scope="session")
def entry() -> Model:
    return Catalog.load(Settings()).models[MODEL]


@pytest.fixture(scope="session")
def pipe(entry: Model) -> object:
    return pipelines.load(entry, torch.device("cpu"))


@pytest.fixture(scope="session")
def engine() -> TorchEngine:
    settings = Settings(device="cpu", batch_size=4, batch_budget="fixed", overlap="on")
    engine = TorchEngine(Catalog.load(settings), settings, Recorder())
    engine.load(MODEL)
    return engine
