from __future__ import annotations

import gc
import json
import weakref
from collections.abc import Callable, Collection
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import nn
from torch.testing._internal.two_tensor import TwoTensor
from transformers import CLIPTokenizer

from app.catalog import Catalog, Model, Quantization
from app.jobs import Guidance, Job
from app.loading import pipeline as loading
from app.settings import Settings
from app.worker.devices import memory
from app.worker.models import host_memory, model_cache
from app.worker.models.model_cache import Deferral, ModelCache, ModelUnavailable
from app.worker.models.model_states import ModelStates
from app.worker.recorder import Event, Recorder
from tests.worker.generate import CPU, generate

BYTES = 4000  # of each model, on the disk and loaded
MakeCache = Callable[..., ModelCache]


class Pipe:
    """As much of a pipeline as the cache looks at."""

    def __init__(self, bytes_: int = BYTES) -> None:
        self.part = nn.Linear(bytes_ // 4, 1, bias=False)

    @property
    def components(self) -> dict[str, Any]:
        return {"transformer": self.part, "same": self.part, "scheduler": object()}

    @property
    def _execution_device(self) -> torch.device:
        return CPU


class Loader:
    """`load` of a catalog entry. "a" fails with `failing`; the models that are alive fit into `memory`."""

    def __init__(self) -> None:
        self.loaded: list[str] = []
        self.alive: list[Any] = []
        self.failing: Exception | None = None
        self.memory = 10**9

    def __call__(self, entry: Model, device: torch.device) -> Any:
        self.loaded.append(entry.id)
        if self.failing is not None and entry.id == "a":
            raise self.failing
        gc.collect()
        if self.memory < BYTES * sum(model() is not None for model in self.alive):
            raise torch.OutOfMemoryError("no memory")
        pipe = Pipe()
        self.alive.append(weakref.ref(pipe))
        return pipe


@pytest.fixture
def loader() -> Loader:
    return Loader()


@pytest.fixture
def make_cache(loader: Loader, tmp_path: Path) -> MakeCache:
    """`make_cache(9000)`: a cache of models a, b, c with so many bytes; `in_use` names those with calls in flight."""
    entry = Catalog.load(Settings()).models["shapes-flux"]
    models = {}
    for name in "abc":
        (tmp_path / name / "transformer").mkdir(parents=True)
        save_file({"weight": torch.zeros(BYTES // 4)}, tmp_path / name / "transformer" / "model.safetensors")
        index = {"_class_name": "FluxPipeline", "transformer": ["diffusers", "FluxTransformer2DModel"]}
        (tmp_path / name / "model_index.json").write_text(json.dumps(index))
        models[name] = entry.model_copy(update={"id": name, "repository": str(tmp_path / name)})
    models["hub"] = entry.model_copy(update={"id": "hub", "repository": "someone/something"})

    def make(
        budget_bytes: int, in_use: Collection[str] = (), device: torch.device = CPU, host_bytes: int = 0
    ) -> ModelCache:
        return ModelCache(
            models, device, budget_bytes, loader, Recorder(), lambda: in_use, ModelStates(), host_bytes
        )  # fmt: skip

    return make


def test_the_least_recently_used_makes_room_and_frees_its_memory(make_cache: MakeCache, loader: Loader) -> None:
    cache = make_cache(2 * BYTES)
    cache.get("a")
    cache.get("b")
    cache.get("a")
    cache.get("c")
    assert cache.warm == ("a", "c")
    assert cache.held_bytes == 2 * BYTES
    assert loader.loaded == ["a", "b", "c"]
    assert [model() is None for model in loader.alive] == [False, True, False]
    assert cache._recorder.of(Event.MODEL_EVICTED, "b") == 1
    assert cache._recorder.of(Event.MODEL_LOADED) == 3


def test_what_fits_is_known_before_it_is_loaded(make_cache: MakeCache) -> None:
    cache = make_cache(2 * BYTES)
    cache.get("a")
    assert cache.fits("b")
    cache.get("b")
    assert not cache.fits("c")
    assert not make_cache(10**9).fits("hub")  # it would have to be downloaded


def test_a_model_larger_than_all_is_held_alone(make_cache: MakeCache) -> None:
    cache = make_cache(BYTES // 2)
    cache.get("a")
    cache.get("b")
    assert cache.warm == ("b",)


def test_a_weight_that_is_made_of_others_takes_what_they_take() -> None:
    """As quantized ones are, whose own dtype is that of their values."""
    pipe = Pipe()
    pipe.part.weight = nn.Parameter(TwoTensor(torch.zeros(1, 10), torch.zeros(1, 10)))
    assert memory.held_bytes(pipe) == 2 * 40


class Moves:
    """In the place of a GPU: which pipelines are moved where, and which memory has locked pages, at most `most`."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, most: int = 10**9) -> None:
        self.made: list[str] = []
        self.locked: list[int] = []  # bytes of each tensor

        def lock(tensor: torch.Tensor) -> str:
            if sum(self.locked) + tensor.nbytes > most:
                return "cudaErrorMemoryAllocation"
            self.locked.append(tensor.nbytes)
            return ""

        monkeypatch.setattr(host_memory, "LOCKED_MIN_BYTES", BYTES)
        monkeypatch.setattr(memory, "lock_pages", lock)
        monkeypatch.setattr(memory, "unlock_pages", lambda tensor: self.locked.remove(tensor.nbytes))
        monkeypatch.setattr(memory, "move", lambda pipe, device: self.made.append(device.type))
        monkeypatch.setattr(memory, "free", lambda device: None)
        monkeypatch.setattr(memory, "used_bytes", lambda device: 0)


def test_evicted_models_come_back_from_main_memory(
    make_cache: MakeCache, loader: Loader, monkeypatch: pytest.MonkeyPatch
) -> None:
    moves = Moves(monkeypatch)
    cache = make_cache(BYTES, device=torch.device("cuda"), host_bytes=2 * BYTES)
    pipe = cache.get("a").pipe
    for name in "bcb":
        cache.get(name)
    assert loader.loaded == ["a", "b", "c"]
    assert moves.made == ["cpu", "cpu", "cpu", "cuda"]
    assert cache.get("a").pipe is pipe
    assert loader.loaded == ["a", "b", "c"]
    assert cache.held_bytes == BYTES


def test_the_model_evicted_first_leaves_main_memory_first(
    make_cache: MakeCache, loader: Loader, monkeypatch: pytest.MonkeyPatch
) -> None:
    Moves(monkeypatch)
    cache = make_cache(BYTES, device=torch.device("cuda"), host_bytes=BYTES)
    for name in "abc":
        cache.get(name)
    cache.get("b")
    assert loader.loaded == ["a", "b", "c"]
    cache.get("a")
    assert loader.loaded == ["a", "b", "c", "a"]


def test_weights_are_page_locked_while_they_wait(
    make_cache: MakeCache, loader: Loader, monkeypatch: pytest.MonkeyPatch
) -> None:
    moves = Moves(monkeypatch)
    cache = make_cache(BYTES, device=torch.device("cuda"), host_bytes=2 * BYTES)
    locked = []
    for name in "abcab":  # from the third on, one leaves main memory or comes back from it for each that enters
        cache.get(name)
        locked.append(moves.locked.copy())
    assert locked == [[], [BYTES], [BYTES] * 2, [BYTES] * 2, [BYTES] * 2]
    cache.drop_idle()
    assert cache._host.used_bytes == sum(moves.locked) == 2 * BYTES


def test_weights_wait_in_ordinary_memory_if_no_more_pages_can_be_locked(
    make_cache: MakeCache, loader: Loader, monkeypatch: pytest.MonkeyPatch
) -> None:
    moves = Moves(monkeypatch, most=BYTES)
    cache = make_cache(BYTES, device=torch.device("cuda"), host_bytes=2 * BYTES)
    for name in "abca":
        cache.get(name)
    assert loader.loaded == ["a", "b", "c"]
    assert sum(moves.locked) <= BYTES


def test_no_later_kernel_tells_of_pages_that_could_not_be_locked(monkeypatch: pytest.MonkeyPatch) -> None:
    """As CUDA does: a call that fails is told of once more, by the next kernel."""
    untold: list[str] = []

    def register(*_: int) -> int:
        untold.append("out of memory")
        return 2

    def run_kernel(*_: Any, **__: Any) -> None:
        if untold:
            raise RuntimeError(untold.pop())

    monkeypatch.setattr(torch.cuda, "cudart", lambda: SimpleNamespace(cudaHostRegister=register))
    weights = torch.zeros(1)
    monkeypatch.setattr(torch, "ones", run_kernel)
    assert memory.lock_pages(weights) == "2"
    run_kernel()


def test_whether_a_model_has_room_once_idle_ones_are_let_go(make_cache: MakeCache) -> None:
    in_use: list[str] = []
    cache = make_cache(2 * BYTES, in_use)
    cache.get("a")
    cache.get("b")
    assert cache.has_room("c")
    in_use += ["a"]
    assert cache.has_room("c")
    in_use += ["b"]
    assert not cache.has_room("c")
    assert [cache.needs_files(name) for name in "ac"] == [False, True]
    cache.fail("c", "a reason")
    assert not cache.needs_files("c")


@pytest.mark.parametrize(
    ("device", "host_bytes", "changes"),
    [
        ("cpu", 10**9, {}),  # its memory is main memory
        ("cuda", BYTES - 1, {}),
        ("cuda", 10**9, {"offload": "model"}),
        ("cuda", 10**9, {"quantization": Quantization(method="torchao-int8", components=("transformer",))}),
    ],
)
def test_a_model_that_cannot_wait_in_main_memory_is_loaded_again(
    make_cache: MakeCache, loader: Loader, monkeypatch: pytest.MonkeyPatch, device: str, host_bytes: int,
    changes: dict[str, Any],
) -> None:  # fmt: skip
    moves = Moves(monkeypatch)
    cache = make_cache(BYTES, device=torch.device(device), host_bytes=host_bytes)
    cache._models = {name: entry.model_copy(update=changes) for name, entry in cache._models.items()}
    for name in "aba":
        cache.get(name)
    assert loader.loaded == ["a", "b", "a"]
    assert not moves.made


def test_models_in_use_are_not_dropped(make_cache: MakeCache, loader: Loader) -> None:
    in_use = ["a", "b"]
    cache = make_cache(2 * BYTES, in_use)
    cache.get("a")
    cache.get("b")
    with pytest.raises(Deferral) as deferral:
        cache.get("c")
    assert deferral.value.needs_room
    assert cache.warm == ("a", "b")
    assert loader.loaded == ["a", "b"]
    assert cache.failure("c") is None  # it may fit later
    in_use.remove("b")
    cache.get("c")
    assert cache.warm == ("a", "c")
    assert cache.drop_idle()
    assert cache.warm == ("a",)
    in_use.clear()
    assert cache.drop_idle()
    assert (cache.warm, cache.held_bytes, cache.drop_idle()) == ((), 0, False)


def test_a_model_in_use_stays_when_memory_ends_while_loading(make_cache: MakeCache, loader: Loader) -> None:
    cache = make_cache(10**9, ["a"])
    cache.get("a")
    cache.get("b")
    loader.memory = BYTES // 2
    with pytest.raises(ModelUnavailable, match="OutOfMemoryError"):
        cache.get("c")
    assert cache.warm == ("a",)
    assert cache.get("a") is not None
    assert loader.loaded == ["a", "b", "c", "c"]


def test_an_evicted_model_that_has_served_leaves_no_memory_behind(make_job: Callable[..., Job]) -> None:
    entry = Catalog.load(Settings()).models["shapes-flux"]
    states = ModelStates()
    cache = ModelCache({entry.id: entry}, CPU, 10**9, loading.load, Recorder(), list, states)
    guidance = Guidance(5.0, 2.5, 0.25, 1.0, "a red shape")
    generate(cache.get(entry.id), make_job("a", nag=guidance, n=2), make_job("b", guidance_scale=3.0))
    parts = [weakref.ref(part) for part in cache.get(entry.id).pipe.components.values() if isinstance(part, nn.Module)]
    assert len(parts) == 4
    tokenizer = cache.get(entry.id).pipe.tokenizer
    assert type(tokenizer) is not CLIPTokenizer
    cache.drop(entry.id)
    assert type(tokenizer) is CLIPTokenizer  # as it was loaded
    assert [part() for part in parts] == [None] * 4
    assert states.snapshot()[entry.id].stage == "cold"


def test_memory_that_ends_while_loading_is_made_free(make_cache: MakeCache, loader: Loader) -> None:
    cache = make_cache(10**9)
    cache.get("a")
    cache.get("b")
    loader.memory = BYTES
    cache.get("c")
    assert cache.warm == ("c",)


def test_a_model_that_cannot_be_loaded_is_not_tried_again_at_once(
    make_cache: MakeCache, loader: Loader, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache = make_cache(10**9)
    loader.failing = OSError("/secret/path is no model")
    for _ in range(2):
        with pytest.raises(ModelUnavailable, match=r"^the model could not be loaded \(OSError\)$"):
            cache.get("a")
    assert loader.loaded == ["a"]
    cache.get("b")
    loader.failing = None
    monkeypatch.setattr(model_cache, "monotonic", lambda: 10.0**12)
    cache.get("a")
    assert cache.warm == ("b", "a")


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
