from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any, Literal

import pytest
import torch

from app.catalog import Catalog, Model, Quantization
from app.loading.pipeline import load
from app.loading.size import ModelSize, model_size
from app.settings import Settings
from app.worker.devices.memory import held_bytes
from tests.tiers import one_of_each
from tests.worker.small import in_folder

#: diffusers' own, at every use of a scheduler and of a model.
pytestmark = [
    pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning"),
    pytest.mark.filterwarnings("ignore:`FluxPosEmbed` is deprecated:FutureWarning"),
]
KNOWN = Catalog.known(Settings())
#: What diffusers copies as one when it offloads by layers.
LAYERS = (torch.nn.Linear, torch.nn.Embedding, torch.nn.Conv1d, torch.nn.Conv2d, torch.nn.Conv3d)


def size_of(entry: Model) -> ModelSize:
    size = model_size(entry)
    assert size is not None
    return size


def changed(entry: Any, **changes: Any) -> Any:
    return entry.model_copy(update=changes)


@pytest.fixture(scope="module")
def hyper(tmp_path_factory: pytest.TempPathFactory) -> Model:
    """An entry with a LoRA."""
    return in_folder(KNOWN["sdxl-hyper"], tmp_path_factory.mktemp("hyper"))


@pytest.mark.parametrize(
    ("name", "changes"),
    [
        ("flux-schnell", {}),  # float32 on the disk, bfloat16 loaded
        pytest.param("sdxl-lightning", {}, marks=pytest.mark.slow),  # another denoiser's weights
        ("wan22-lightning", {}),  # parts in several precisions, two LoRAs that are fused
        # A text encoder that keeps some weights in float32.
        pytest.param("pixart-sigma", {"dtype": "float16"}, marks=pytest.mark.slow),
    ],
)
def test_the_loaded_size_is_that_of_the_loaded_pipeline(name: str, changes: dict[str, Any], tmp_path: Path) -> None:
    entry = changed(in_folder(KNOWN[name], tmp_path), **changes)
    pipe = load(entry, torch.device("cpu"))
    size = size_of(entry)
    # Buffers that no file has are what is missing; they do not grow with the model.
    assert held_bytes(pipe) - 12_000 < size.loaded_bytes <= held_bytes(pipe)
    assert size.device_bytes == size.loaded_bytes
    # The parts are where they were loaded to: no hook moves them.
    modules = [part for part in pipe.components.values() if isinstance(part, torch.nn.Module)]
    assert not any(hasattr(module, "_hf_hook") for part in modules for module in part.modules())


def test_files_that_diffusers_does_not_load_do_not_count(hyper: Model) -> None:
    before = size_of(hyper)
    folder = Path(hyper.repository)
    for name in ("sd_xl_base.safetensors", "unet/diffusion_pytorch_model.safetensors", "unet/openvino_model.bin"):
        (folder / name).write_bytes(bytes(1000))
    assert size_of(hyper) == before


def test_a_lora_beside_the_weights_counts(hyper: Model) -> None:
    beside = changed(hyper, lora=tuple(changed(lora, fuse=False) for lora in hyper.lora))
    more = size_of(beside).loaded_bytes - size_of(hyper).loaded_bytes
    pipes = [load(entry, torch.device("cpu")) for entry in (beside, hyper)]
    # Its file also has a number per layer, the alpha, which becomes part of the scale.
    assert more == pytest.approx(held_bytes(pipes[0]) - held_bytes(pipes[1]), rel=0.01)


def test_offload_saves_the_device_memory(hyper: Model) -> None:
    whole, model, group = (size_of(changed(hyper, offload=offload)) for offload in ("none", "model", "group"))
    assert whole.device_bytes > model.device_bytes > group.device_bytes > 0
    assert model.host_bytes == group.host_bytes == whole.loaded_bytes > whole.host_bytes
    assert model.of_device("cpu") == whole.of_device("cpu") == whole.loaded_bytes


@pytest.mark.parametrize(("method", "share"), [("bitsandbytes-nf4", 0.5625 / 4), ("torchao-int8", 1 / 4)])
def test_quantization_saves_memory(
    hyper: Model, method: Literal["bitsandbytes-nf4", "torchao-int8"], share: float
) -> None:
    plain = changed(hyper, lora=())  # in float32
    quantized = changed(plain, quantization=Quantization(method=method, components=("unet",)))
    unet = load(plain, torch.device("cpu")).unet
    matrices = sum(value.nbytes for name, value in unet.named_parameters() if value.ndim == 2 and "embed" not in name)
    saved = size_of(plain).loaded_bytes - size_of(quantized).loaded_bytes
    assert saved == pytest.approx(matrices * (1 - share), rel=1e-3)


@pytest.mark.parametrize("name", one_of_each(4, ["flux-schnell", "sdxl", "pixart-sigma", "wan21-lightx2v"]))
def test_the_arithmetic_of_cast_weights_is_within_a_tenth_of_what_they_take(name: str, tmp_path: Path) -> None:
    entry = in_folder(KNOWN[name], tmp_path)
    plain = load(entry, torch.device("cpu"))
    parts = [part for part, module in plain.components.items() if isinstance(module, torch.nn.Module)]
    for components in (parts, parts[:1]):
        cast = changed(entry, quantization=Quantization(method="layerwise-fp8", components=tuple(components)), lora=())
        taken = held_bytes(load(cast, torch.device("cpu")))
        assert size_of(cast).device_bytes == pytest.approx(taken, rel=0.1)
        assert size_of(cast).device_bytes < size_of(changed(entry, lora=())).device_bytes
        assert size_of(cast).host_bytes == size_of(changed(entry, lora=())).loaded_bytes


@pytest.mark.parametrize("name", one_of_each(3, ["flux-schnell", "sdxl", "wan22-lightning"]))
def test_the_arithmetic_of_offloaded_weights_is_within_a_tenth_of_what_is_copied_at_once(
    name: str, tmp_path: Path
) -> None:
    entry = in_folder(KNOWN[name], tmp_path)
    pipe = load(entry, torch.device("cpu"))
    parts = [part for part in pipe.components.values() if isinstance(part, torch.nn.Module)]
    sizes = [sum(tensor.nbytes for tensor in (*part.parameters(), *part.buffers())) for part in parts]
    assert size_of(changed(entry, offload="model")).device_bytes == pytest.approx(max(sizes), rel=0.1)
    layers = [layer for part in parts for layer in part.modules() if isinstance(layer, LAYERS)]
    largest = max(sum(tensor.nbytes for tensor in layer.parameters()) for layer in layers)
    assert size_of(changed(entry, offload="group")).device_bytes == pytest.approx(2 * largest, rel=0.1)


def test_without_its_files_a_size_is_unknown(hyper: Model, tmp_path: Path) -> None:
    assert model_size(changed(hyper, repository="nobody/nothing")) is None
    assert model_size(changed(hyper, repository=str(tmp_path))) is None


def test_of_weights_that_are_cut_off_the_size_is_unknown(tmp_path: Path) -> None:
    shutil.copytree(KNOWN["shapes-sd"].repository, tmp_path / "cut")
    (weights,) = (tmp_path / "cut/unet").glob("*.safetensors")
    weights.write_bytes(weights.read_bytes()[:1000])
    assert model_size(changed(KNOWN["shapes-sd"], repository=str(tmp_path / "cut"))) is None
