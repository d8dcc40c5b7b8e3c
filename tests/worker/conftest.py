from __future__ import annotations

from collections.abc import Iterator

import pytest

from app.catalog import Catalog, Model
from app.settings import Settings
from app.worker.engine import pipelines
from app.worker.engine.shared_model import SharedModel
from app.worker.engine.torch_engine import TorchEngine
from app.worker.recorder import Recorder
from tests.limits import HANG_S
from tests.worker.generate import CPU

MODEL = "shapes-flux"


@pytest.fixture(scope="session")
def entry() -> Model:
    return Catalog.load(Settings()).models[MODEL]


@pytest.fixture(scope="session")
def shared(entry: Model) -> Iterator[SharedModel]:
    """The embedded model, loaded; `shared.pipe` is its pipeline."""
    model = SharedModel(entry, pipelines.load(entry, CPU))
    yield model
    model.close()


@pytest.fixture(scope="session")
def engine() -> Iterator[TorchEngine]:
    """A started engine with the embedded model warm, four images in a denoiser call."""
    settings = Settings(device="cpu", batch_size=4, batch_budget="fixed")
    engine = TorchEngine(Catalog.load(settings), settings, Recorder())
    engine.start()
    engine.load(MODEL).result(HANG_S)
    yield engine
    engine.close()
