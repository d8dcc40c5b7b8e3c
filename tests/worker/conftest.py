from __future__ import annotations

import pytest
import torch

from app.catalog import Catalog, Model
from app.settings import Settings
from app.worker import pipelines
from app.worker.engine import TorchEngine

MODEL = "shapes-flux"


@pytest.fixture(scope="session")
def entry() -> Model:
    return Catalog.load(Settings()).models[MODEL]


@pytest.fixture(scope="session")
def pipe(entry: Model) -> object:
    return pipelines.load(entry, torch.device("cpu"))


@pytest.fixture(scope="session")
def engine() -> TorchEngine:
    engine = TorchEngine(Catalog.load(Settings()), "cpu", most_pictures=4)
    engine.load(MODEL)
    return engine
