"""The speed settings of an entry: in force on its pipeline, exact or nearly so, or refused by name."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pytest
import torch
from diffusers.models import attention_dispatch
from torch import nn

from app.catalog import Attention, Catalog, Model, Quantization, StepCache, Weights
from app.catalog.speed import WITH_LSE
from app.jobs import Guidance, Job, LoraUse
from app.loading import speed
from app.loading.checks import problems
from app.loading.errors import LoadError
from app.loading.pipeline import load
from app.loading.size import model_size
from app.settings import Settings
from app.worker.devices.memory import held_bytes
from app.worker.engine.shared_model import SharedModel
from nag._diffusers import active_backend
from nag.families.family import denoisers_of
from tests.worker.generate import CPU, generate
from tests.worker.loras import add_loras, layers_of, write_lora
from tests.worker.tiny_models import TINY_CASES, tiny_entry, tiny_pipe

Make = Callable[..., Job]
KNOWN = Catalog.known(Settings())
NAG = Guidance(scale=5.0, tau=2.5, alpha=0.25, end=0.6, negative_prompt="a red shape")
CAST = Quantization(method="layerwise-fp8", components=("transformer",))
WITHOUT_DISPATCHER = ("sd", "sd3", "sana", "pixart")
OTHER_DEVICES = {"_native_npu", "_native_xla"}


@pytest.fixture(autouse=True)
def no_graphs_left() -> Iterator[None]:
    yield
    torch.compiler.reset()


def loaded(entry: Model, **changes: Any) -> SharedModel:
    entry = entry.model_copy(update=changes)
    return SharedModel(entry, load(entry, CPU))


def pixels(model: SharedModel, *jobs: Job) -> list[Any]:
    return [image.pixels for image in generate(model, *jobs)]


def difference(one: list[Any], other: list[Any]) -> float:
    return max(float(np.abs(a - b).max()) for a, b in zip(one, other, strict=True))


@pytest.fixture
def jobs(make_job: Make) -> list[Job]:
    """A plain and a guided image, whose guidance ends in mid-run."""
    return [make_job("a", seed=1, num_inference_steps=4), make_job("b", seed=2, num_inference_steps=4, nag=NAG)]


def test_attention_has_the_names_of_diffusers_dispatcher() -> None:
    names = {backend.value for backend in attention_dispatch.AttentionBackendName}
    assert set(get_args(Attention)) == names - OTHER_DEVICES


def test_a_ring_takes_the_backends_that_diffusers_splits_and_that_give_the_log_sum_exp() -> None:
    registry = attention_dispatch._AttentionBackendRegistry
    split = registry._supports_context_parallel - OTHER_DEVICES
    refusing = {name for name in split if "does not support setting `return_lse=True`" in source_of(name)}
    assert refusing
    assert split - refusing == WITH_LSE


def source_of(name: str) -> str:
    backend = attention_dispatch.AttentionBackendName(name)
    return inspect.getsource(attention_dispatch._AttentionBackendRegistry._backends[backend])


def test_the_backends_without_a_mask_are_those_that_raise_for_one() -> None:
    backends = attention_dispatch._AttentionBackendRegistry._backends
    raising = {
        backend.value
        for backend, function in backends.items()
        if "`attn_mask` is not supp" in inspect.getsource(function)
    }
    assert raising - OTHER_DEVICES == speed.WITHOUT_MASK


@pytest.mark.parametrize("name", ["flux", "sd", "sd3", "wan", "sana", "pixart", "qwen-image", "ltx", "chroma"])
def test_it_is_known_of_a_class_whether_it_attends_by_the_dispatcher(name: str) -> None:
    for denoiser in denoisers_of(tiny_pipe(name)):
        processors = [getattr(module, "processor", None) for module in denoiser.modules()]
        uses_it = any(hasattr(processor, "_attention_backend") for processor in processors)
        assert speed._dispatches(type(denoiser)) == uses_it == (name not in WITHOUT_DISPATCHER)


@pytest.mark.slow
@pytest.mark.parametrize("attention", ["_native_math", "_native_flash"])
def test_another_attention_backend_makes_the_same_images(
    attention: str, entry: Model, shared: SharedModel, jobs: list[Job], monkeypatch: pytest.MonkeyPatch
) -> None:
    # On a CPU this kernel also computes in float32.
    monkeypatch.setattr(speed, "IN_FLOAT32", speed.IN_FLOAT32 | {"_native_flash"})
    expected = pixels(shared, *jobs)
    model = loaded(entry, attention=attention)
    used: list[Any] = []
    name = attention_dispatch.AttentionBackendName(attention)
    backends = attention_dispatch._AttentionBackendRegistry._backends
    function = backends[name]
    monkeypatch.setitem(backends, name, lambda **options: used.append(1) or function(**options))
    assert difference(pixels(model, *jobs), expected) < 1e-4
    pixels(model, jobs[0])
    assert used  # under guidance torch's flash kernel is called for its log-sum-exp too, past the dispatcher
    used.clear()
    assert active_backend() == attention_dispatch.AttentionBackendName.NATIVE
    assert difference(pixels(shared, *jobs), expected) < 1e-4
    assert not used  # by the other model
    model.close()


def test_layerwise_casting_takes_the_bytes_of_the_arithmetic_and_rounds(
    entry: Model, shared: SharedModel, jobs: list[Job]
) -> None:
    components = ("transformer", "text_encoder", "text_encoder_2", "vae")
    model = loaded(entry, quantization=Quantization(method="layerwise-fp8", components=components))
    assert held_bytes(model.pipe) < 0.6 * held_bytes(shared.pipe)
    assert model.pipe.text_encoder.dtype == model.pipe.text_encoder_2.dtype == torch.float32
    images, expected = pixels(model, *jobs), pixels(shared, *jobs)
    assert difference(images, expected) > 1e-4
    assert all(np.abs(a - b).mean() < 0.1 for a, b in zip(images, expected, strict=True))
    model.close()


def test_a_request_s_lora_is_added_to_cast_weights(
    entry: Model, shared: SharedModel, make_job: Make, tmp_path: Path
) -> None:
    model = loaded(entry, quantization=CAST)
    path = write_lora(tmp_path / "l.safetensors", shared.pipe, {"transformer": layers_of(shared.pipe.transformer)})
    job, plain = (
        make_job("a", seed=1, num_inference_steps=1, loras=loras) for loras in ((LoraUse("l", 1.0),), ())
    )  # fmt: skip
    changes = []
    for one in (model, shared):
        add_loras(one, {"l": path})
        changes.append(pixels(one, job)[0] - pixels(one, plain)[0])
    shared.remove_adapter("l")
    assert np.abs(changes[0] - changes[1]).mean() < 0.5 * np.abs(changes[1]).mean()
    model.close()


@pytest.mark.slow
def test_channels_last_changes_where_numbers_are_and_not_what_they_are(make_job: Make) -> None:
    entry = KNOWN["shapes-sd-turbo"]
    plain, model = loaded(entry), loaded(entry, channels_last=True)
    convolutions = [module for module in model.pipe.unet.modules() if isinstance(module, nn.Conv2d)]
    assert all(module.weight.is_contiguous(memory_format=torch.channels_last) for module in convolutions)
    job = make_job("a", model=entry.id, num_inference_steps=2, nag=NAG)
    assert difference(pixels(model, job), pixels(plain, job)) < 1e-4


@pytest.mark.filterwarnings("ignore::DeprecationWarning:torch")
@pytest.mark.filterwarnings("ignore:Dynamo detected a call to a `functools.lru_cache`")
@pytest.mark.slow
def test_repeated_blocks_are_compiled_one_by_one(make_job: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    compiled: list[str] = []
    compile_module = nn.Module.compile

    def compile_eagerly(module: nn.Module, *args: Any, **kwargs: Any) -> None:
        compiled.append(type(module).__name__)
        compile_module(module, *args, backend="eager", **kwargs)

    monkeypatch.setattr(nn.Module, "compile", compile_eagerly)
    pipes = [tiny_pipe("flux", double_blocks=1, single_blocks=1) for _ in range(2)]
    entry = tiny_entry(TINY_CASES["flux"], pipes[0])
    in_blocks = entry.model_copy(update={"compile": "blocks"})
    speed.apply_settings(pipes[0], in_blocks, CPU)
    assert compiled == ["FluxTransformerBlock", "FluxSingleTransformerBlock"]
    model, plain = SharedModel(in_blocks, pipes[0]), SharedModel(entry, pipes[1])
    job = make_job("a", seed=1, width=16, height=16, num_inference_steps=2, nag=NAG)
    assert difference(pixels(model, job), pixels(plain, job)) < 1e-4
    model.close()


class DoubledSine(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.sin(x) * 2


@pytest.mark.filterwarnings("ignore::DeprecationWarning:torch")
@pytest.mark.slow
def test_compiled_code_is_found_again_beside_the_weights(
    entry: Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", "")  # so that it is put back
    monkeypatch.delenv("TORCHINDUCTOR_CACHE_DIR")
    monkeypatch.setattr("huggingface_hub.constants.HF_HOME", str(tmp_path))

    def run() -> tuple[int, int]:
        """Compiles; returns how often torch found compiled code in the folder, and how often it did not."""
        torch._dynamo.utils.counters.clear()
        torch.compiler.reset()
        module = DoubledSine()
        speed._compile(entry.model_copy(update={"compile": "denoiser"}), module)
        with torch.no_grad():
            module(torch.ones(2, 3))
        found = torch._dynamo.utils.counters["aot_autograd"]
        return found["autograd_cache_hit"], found["autograd_cache_miss"]

    assert run() == (0, 1), dict(torch._dynamo.utils.counters)
    assert any((tmp_path / "inductor").rglob("*.py"))
    assert run() == (1, 0), dict(torch._dynamo.utils.counters)


def test_only_images_with_a_side_above_the_number_are_decoded_in_tiles(make_job: Make) -> None:
    entry = KNOWN["shapes-sd-turbo"].model_copy(update={"vae_tiling": 100})
    model = SharedModel(entry, load(entry, CPU))
    tiled: list[bool] = []
    decode = model.pipe.vae._decode
    model.pipe.vae._decode = lambda *args, **kwargs: tiled.append(model.pipe.vae.use_tiling) or decode(*args, **kwargs)
    large = make_job("a", model=entry.id, num_inference_steps=1, width=128, height=64)
    small = make_job("b", model=entry.id, num_inference_steps=1)
    pixels(model, large, small)
    assert sorted(tiled) == [False, True]
    model.close()


def test_a_gguf_file_s_matrices_stay_quantized(
    entry: Model, shared: SharedModel, jobs: list[Job], tmp_path: Path
) -> None:
    gguf = pytest.importorskip("gguf")
    writer = gguf.GGUFWriter(tmp_path / "q8.gguf", "flux")
    for name, tensor in shared.pipe.transformer.state_dict().items():
        values = tensor.float().numpy()
        is_quantized = values.ndim == 2 and values.shape[1] % 32 == 0
        kind = gguf.GGMLQuantizationType.Q8_0 if is_quantized else gguf.GGMLQuantizationType.F32
        writer.add_tensor(name, gguf.quants.quantize(values, kind), raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    model = loaded(entry, denoiser=Weights(repository=str(tmp_path), weight_name="q8.gguf"))
    assert held_bytes(model.pipe) < 0.6 * held_bytes(shared.pipe)
    size = model_size(model.entry)
    assert size is not None
    assert size.device_bytes == pytest.approx(held_bytes(model.pipe), rel=0.1)
    images, expected = pixels(model, *jobs), pixels(shared, *jobs)
    assert difference(images, expected) > 1e-4
    assert all(np.abs(a - b).mean() < 0.05 for a, b in zip(images, expected, strict=True))
    model.close()


def test_weights_quantized_by_torchao_are_guided(entry: Model, shared: SharedModel, jobs: list[Job]) -> None:
    pytest.importorskip("torchao")
    model = loaded(entry, quantization=Quantization(method="torchao-int8", components=("transformer",)))
    assert held_bytes(model.pipe) == pytest.approx(model_size(model.entry).device_bytes, rel=0.1)
    images, expected = pixels(model, *jobs), pixels(shared, *jobs)
    assert difference(images, expected) > 1e-4
    assert all(np.abs(a - b).mean() < 0.05 for a, b in zip(images, expected, strict=True))
    model.close()


@pytest.mark.parametrize(
    ("name", "changes", "said"),
    [
        ("shapes-sd", {"attention": "flex"}, "attention: UNet2DConditionModel does not compute it by"),
        ("shapes-flux", {"attention": "_native_cudnn"}, "attention: _native_cudnn computes in bfloat16 or float16"),
        ("shapes-flux", {"attention": "xformers"}, "attention: Xformers .* install `xformers"),
        ("shapes-flux", {"attention": "flash", "dtype": "bfloat16"}, "attention: .* install `flash-attn"),
        ("chroma-hd", {"attention": "_native_flash"}, "attention: _native_flash takes no mask, and the text of Chroma"),
        ("shapes-sd", {"cache": StepCache(method="first_block")}, "cache: the denoiser of StableDiffusionPipeline"),
        ("sana-sprint", {"cache": StepCache(method="first_block")}, "cache: the denoiser of SanaSprintPipeline"),
        (
            "shapes-flux",
            {"cache": StepCache(method="first_block", options={"limit": 1})},
            "cache.options.limit: FirstBlockCacheConfig takes no such option",
        ),
        ("pixart-sigma", {"compile": "blocks"}, "compile: PixArtTransformer2DModel names no repeated blocks; use den"),
        ("shapes-flux", {"denoiser": Weights(repository="a/b", weight_name="c.gguf")}, "denoiser: c.gguf needs gguf"),
    ],
)
def test_the_check_says_what_a_pipeline_cannot_have(
    name: str, changes: dict[str, Any], said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda package: None)
    found = "\n".join(problems(KNOWN[name].model_copy(update=changes)))
    assert re.search(said, found), found


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"attention": "_native_efficient"}, "attention: _native_efficient needs a GPU, and the device is cpu"),
        ({"attention": "flash"}, "attention: .* install `flash-attn"),
        (
            {"quantization": Quantization(method="layerwise-fp8", components=("tokenizer",))},
            "quantization.components: the pipeline has no weights tokenizer",
        ),
        ({"cache": StepCache(method="mag")}, "cache.options: `mag_ratios` must be provided"),
    ],
)
def test_a_setting_that_cannot_be_had_keeps_a_model_from_loading(
    entry: Model, changes: dict[str, Any], said: str
) -> None:
    with pytest.raises(LoadError, match=f"^shapes-flux: {said}"):
        load(entry.model_copy(update=changes), CPU)
