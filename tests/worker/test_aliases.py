"""Two names of one model: one copy of its weights, and denoiser calls that requests under both of them share."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from concurrent.futures import Future
from dataclasses import replace

import pytest
import torch

from app.api.requests.fields import read_fields
from app.api.requests.generation import JobBody
from app.api.resolver import resolve
from app.catalog import Catalog
from app.jobs import Job, JobError
from app.settings import Settings
from app.worker.engine.torch_engine import TorchEngine
from app.worker.protocol import JobControl, JobOutput
from app.worker.recorder import Recorder
from tests.limits import HANG_S
from tests.worker.mixes import FILES

MODEL, ALIAS, COPY = "shapes-flux", "gpt-image-1", "copy"


@pytest.fixture
def catalog() -> Catalog:
    """Has another entry of the same weights, as `extends` makes one: a model of its own."""
    catalog = Catalog.load(Settings())
    copy = catalog.models[MODEL].model_copy(update={"id": COPY})
    return catalog.model_copy(update={"models": {**catalog.models, COPY: copy}})


@pytest.fixture
def engine(catalog: Catalog) -> Iterator[TorchEngine]:
    settings = Settings(device="cpu", batch_size=8, batch_budget="fixed")
    engine = TorchEngine(catalog, settings, Recorder())
    yield engine
    engine.close()


def shared_by(future: Future[JobOutput | JobError]) -> int:
    """The most images that shared a denoiser call with a job's, its own included."""
    output = future.result(HANG_S)
    assert isinstance(output, JobOutput), output
    return output.batch_size


def job_of(name: str, catalog: Catalog) -> Job:
    """A job of two images that a request for `name` makes."""
    fields, notes = read_fields({"model": name, "prompt": f"a shape for {name}", "n": 2}, JobBody, catalog)
    return replace(resolve(JobBody(**fields), catalog, alias=notes.name), id=name)


def resident_bytes() -> int:
    """Of all parameters in this process; those that share memory count once."""
    gc.collect()
    parameters = [found for found in gc.get_objects() if type(found) is torch.nn.Parameter]
    storages = {parameter.untyped_storage().data_ptr(): parameter.untyped_storage() for parameter in parameters}
    return sum(storage.nbytes() for storage in storages.values())


@pytest.mark.slow
def test_two_names_are_one_copy_of_the_weights_and_share_calls(engine: TorchEngine, catalog: Catalog) -> None:
    before_bytes = resident_bytes()
    futures = [engine.submit(job_of(name, catalog), FILES, JobControl()) for name in (MODEL, ALIAS)]
    engine.start()  # both are there at its first look
    assert [shared_by(future) for future in futures] == [4, 4]
    assert engine.warm == (MODEL,)
    one_bytes = resident_bytes() - before_bytes
    assert one_bytes > 10**6

    futures = [engine.submit(job_of(name, catalog), FILES, JobControl()) for name in (MODEL, COPY)]
    assert [shared_by(future) for future in futures] == [2, 2]  # an entry of its own is what an alias is not
    assert set(engine.warm) == {MODEL, COPY}
    assert resident_bytes() - before_bytes == 2 * one_bytes
