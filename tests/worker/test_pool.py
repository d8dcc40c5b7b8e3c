from __future__ import annotations

import gc
import json
import weakref
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from app.catalog import Catalog, Model
from app.settings import Settings
from app.worker import memory, pool
from app.worker.pool import ModelUnavailable, Pool
from app.worker.recorder import Event, Recorder
from app.worker.states import ModelStates

BYTES = 4000  # of each model, on the disk and loaded
MakePool = Callable[..., Pool]


class Pipe:
    """As much of a pipeline as the pool looks at."""

    def __init__(self, bytes_: int = BYTES) -> None:
        self.part = nn.Linear(bytes_ // 4, 1, bias=False)

    @property
    def components(self) -> dict[str, Any]:
        return {"transformer": self.part, "same": self.part, "scheduler": object()}


class Loader:
    """`load` of a catalog entry, which says what happens by the entry's id."""

    def __init__(self) -> None:
        self.loaded: list[str] = []
        self.failing: Exception | None = None
        self.memory = 10**9

    def __call__(self, entry: Model, device: torch.device) -> Any:
        self.loaded.append(entry.id)
        if self.failing is not None and entry.id == "a":
            raise self.failing
        gc.collect()
        if self.memory < BYTES * sum(each() is not None for each in self.alive):
            raise torch.OutOfMemoryError("no memory")
        pipe = Pipe()
        self.alive.append(weakref.ref(pipe))
        return pipe

    alive: list[Any]


@pytest.fixture
def loader() -> Loader:
    loader = Loader()
    loader.alive = []
    return loader


@pytest.fixture
def make_pool(loader: Loader, tmp_path: Path) -> MakePool:
    """`make_pool(9000)`: a pool of models a, b, c with so many bytes."""
    entry = Catalog.load(Settings()).models["shapes-flux"]
    models = {}
    for name in "abc":
        (tmp_path / name / "transformer").mkdir(parents=True)
        save_file({"weight": torch.zeros(BYTES // 4)}, tmp_path / name / "transformer" / "model.safetensors")
        index = {"_class_name": "FluxPipeline", "transformer": ["diffusers", "FluxTransformer2DModel"]}
        (tmp_path / name / "model_index.json").write_text(json.dumps(index))
        models[name] = entry.model_copy(update={"id": name, "repository": str(tmp_path / name)})
    models["hub"] = entry.model_copy(update={"id": "hub", "repository": "someone/something"})

    def make(budget_bytes: int) -> Pool:
        return Pool(models, torch.device("cpu"), budget_bytes, loader, Recorder(), nullcontext, ModelStates())

    return make


def test_the_least_recently_used_makes_room_and_frees_its_memory(make_pool: MakePool, loader: Loader) -> None:
    held = make_pool(2 * BYTES)
    held.get("a")
    held.get("b")
    held.get("a")
    held.get("c")
    assert held.warm == ("a", "c")
    assert held.held_bytes == 2 * BYTES
    assert loader.loaded == ["a", "b", "c"]
    assert [each() is None for each in loader.alive] == [False, True, False]
    assert held._recorder.of(Event.MODEL_EVICTED, "b") == 1
    assert held._recorder.of(Event.MODEL_LOADED) == 3


def test_what_fits_is_known_before_it_is_loaded(make_pool: MakePool) -> None:
    held = make_pool(2 * BYTES)
    held.get("a")
    assert held.fits("b")
    held.get("b")
    assert not held.fits("c")
    assert not make_pool(10**9).fits("hub")  # it would have to be downloaded


def test_a_model_larger_than_all_is_held_alone(make_pool: MakePool) -> None:
    held = make_pool(BYTES // 2)
    held.get("a")
    held.get("b")
    assert held.warm == ("b",)


def test_memory_that_ends_while_loading_is_made_free(make_pool: MakePool, loader: Loader) -> None:
    held = make_pool(10**9)
    held.get("a")
    held.get("b")
    loader.memory = BYTES
    held.get("c")
    assert held.warm == ("c",)


def test_a_model_that_cannot_be_loaded_is_not_tried_again_at_once(
    make_pool: MakePool, loader: Loader, monkeypatch: pytest.MonkeyPatch
) -> None:
    held = make_pool(10**9)
    loader.failing = OSError("/secret/path is no model")
    for _ in range(2):
        with pytest.raises(ModelUnavailable, match=r"^the model could not be loaded \(OSError\)$"):
            held.get("a")
    assert loader.loaded == ["a"]
    held.get("b")
    loader.failing = None
    monkeypatch.setattr(pool, "monotonic", lambda: 10.0**12)
    held.get("a")
    assert held.warm == ("b", "a")


def test_bytes_of_a_pipeline_are_counted_once() -> None:
    assert memory.held_bytes(Pipe()) == BYTES


@pytest.mark.parametrize(
    ("error", "so"),
    [
        (torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB."), True),
        (MemoryError(), True),
        (RuntimeError("[enforce fail at alloc_cpu.cpp:127] . DefaultCPUAllocator: can't allocate memory"), True),
        (RuntimeError("mat1 and mat2 shapes cannot be multiplied"), False),
        (ValueError("out of memory"), False),
    ],
)
def test_what_is_out_of_memory(error: Exception, so: bool) -> None:
    assert memory.is_out_of_memory(error) is so


def test_torch_s_own_allocator_says_so() -> None:
    with pytest.raises(RuntimeError) as told:
        torch.empty(2**60, dtype=torch.uint8)
    assert memory.is_out_of_memory(told.value)
