"""LoRAs of single rows: against diffusers' own, against each request alone, and against the plain model."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn
from torch.nn import functional as F

from app.jobs import Guidance, Job, LoraUse
from app.loading.adapters import load_adapter
from app.loading.errors import LoraError
from app.worker.engine import adapters, pipelines, shared_modules
from app.worker.engine.adapters import Loras
from app.worker.engine.pipeline_call import CallResult
from app.worker.engine.shared_model import SharedModel
from app.worker.engine.shared_modules import ModuleCall, SharedDenoiser
from app.worker.prompts.encoder_memo import EncoderMemo
from app.worker.recorder import Event, Recorder
from tests.tiers import slow_but
from tests.worker.generate import CPU, difference, generate
from tests.worker.loras import add_loras, layers_of, use_peft, write_lora
from tests.worker.mixes import NAG, loaded
from tests.worker.tiny_models import TINY_CASES, image_side, tiny_entry, tiny_model, tiny_pipe

Make = Callable[..., Job]
Paths = dict[str, Path]
DENOISERS = {"shapes-flux": "transformer", "shapes-sd": "unet", "shapes-wan": "transformer"}
CFG = {"guidance_scale": 3.0, "negative_prompt": "a blue circle"}
VIDEO = {"width": 32, "height": 32, "num_frames": 5, "fps": 8}
LIKE_DIFFUSERS = 1e-3  # of pixels in [0, 1], and
ROUNDING = 1e-4  # what batches of other sizes make of them

NONE: Loras = ()
ATTENTION, EVERYTHING, TEXT = LoraUse("attention", 1.0), LoraUse("everything", 0.7), LoraUse("text", 0.6)
THREE = (LoraUse("attention", 0.5), LoraUse("everything", -0.4), LoraUse("text", 1.2))
#: LoRAs of each row of a batch, with what guides it.
BATCH: tuple[tuple[Loras, dict[str, Any]], ...] = (
    (NONE, CFG),
    ((ATTENTION,), {"nag": NAG}),
    ((EVERYTHING,), {}),
    (THREE, {**CFG, "nag": NAG}),
    (NONE, {"nag": NAG}),
    ((TEXT,), {"nag": replace(NAG, scale=2.0, method="vsf")}),
    ((ATTENTION, TEXT), {**CFG, "nag": NAG}),
    ((replace(ATTENTION, scale=-0.8),), {}),
)


def write_loras(folder: Path, pipe: Any, denoiser: str) -> Paths:
    """Three LoRAs of different ranks and layers, one of them with a part for the text encoder."""
    module = getattr(pipe, denoiser)
    return {
        "attention": write_lora(folder / "a.safetensors", pipe, {denoiser: layers_of(module, "attn")}, rank=2, seed=1),
        "everything": write_lora(folder / "e.safetensors", pipe, {denoiser: layers_of(module)}, rank=3, seed=2),
        "text": write_lora(
            folder / "t.safetensors", pipe, {denoiser: layers_of(module, "ff"), **text_layers(pipe)}, rank=4, seed=3
        ),
    }


def text_layers(pipe: Any) -> dict[str, list[str]]:
    """Of CLIP; diffusers takes no LoRAs of T5."""
    is_clip = type(pipe.text_encoder).__name__ == "CLIPTextModel"
    return {"text_encoder": layers_of(pipe.text_encoder, "self_attn")} if is_clip else {}


@pytest.fixture(params=slow_but(("shapes-flux",), DENOISERS))
def model(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[tuple[SharedModel, Paths]]:
    """An embedded model that can use the three LoRAs."""
    yield from with_loras(loaded(request.param), tmp_path)


@pytest.fixture
def flux(tmp_path: Path) -> Iterator[tuple[SharedModel, Paths]]:
    yield from with_loras(loaded("shapes-flux"), tmp_path)


def with_loras(model: SharedModel, folder: Path) -> Iterator[tuple[SharedModel, Paths]]:
    paths = write_loras(folder, model.pipe, DENOISERS[model.entry.id])
    add_loras(model, paths)
    yield model, paths
    for lora in paths:
        model.remove_adapter(lora)


def batch(make_job: Make, model: SharedModel, rows: Any = BATCH) -> list[Job]:
    shape = {} if model.entry.num_frames is None else VIDEO
    return [
        make_job(f"{i}", model=model.entry.id, seed=i, loras=loras, **shape, **changes)
        for i, (loras, changes) in enumerate(rows)
    ]


def without_loras(*jobs: Job) -> list[Job]:
    return [replace(job, request=replace(job.request, loras=())) for job in jobs]


def distance(one: CallResult, other: CallResult) -> float:
    return float(np.abs(one.pixels - other.pixels).max())


def test_rows_of_a_batch_have_their_own_loras(model: tuple[SharedModel, Paths], make_job: Make) -> None:
    shared, _ = model
    jobs = batch(make_job, shared)
    together = generate(shared, *jobs)
    alone = [generate(shared, job)[0] for job in jobs]
    assert [image.batch_size for image in together] == [len(jobs)] * len(jobs)
    for job, one, other in zip(jobs, together, alone, strict=True):
        assert difference(one, other) <= 1, job.id
        if job.request.loras:
            assert distance(one, generate(shared, *without_loras(job))[0]) > ROUNDING, job.id


def test_rows_without_loras_are_the_plain_models_bit_for_bit(
    model: tuple[SharedModel, Paths], make_job: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    shared, _ = model
    is_joint = (
        shared.entry.id == "shapes-flux"
    )  # elsewhere guided rows keep their text keys from the first of two calls
    rows = [(loras, changes if is_joint else {**changes, "nag": None}) for loras, changes in BATCH]
    run, compared = SharedDenoiser.run, []

    def run_twice(self: SharedDenoiser, calls: Sequence[ModuleCall]) -> list[Any]:
        outputs = run(self, calls)
        plain = run(self, [replace(call, loras=()) for call in calls])
        for call, output, expected in zip(calls, outputs, plain, strict=True):
            compared.append((bool(call.loras), torch.equal(output[0], expected[0])))
        return outputs

    monkeypatch.setattr(shared_modules, "sort_key", lambda _: ())  # both in one order
    monkeypatch.setattr(SharedDenoiser, "run", run_twice)
    generate(shared, *batch(make_job, shared, rows))
    assert {*compared} == {(True, False), (False, True)}


def test_loras_have_the_effect_that_diffusers_gives_them(model: tuple[SharedModel, Paths], make_job: Make) -> None:
    shared, paths = model
    jobs = batch(make_job, shared)
    together = generate(shared, *jobs)
    for place in (1, 2, 3, 5):
        pipe = pipelines.load(shared.entry, CPU)
        use_peft(pipe, paths, jobs[place].request.loras)
        fresh = SharedModel(shared.entry, pipe)
        (expected,) = generate(fresh, *without_loras(jobs[place]))
        assert distance(together[place], expected) < LIKE_DIFFUSERS, place


def test_kohyas_layout_with_alphas_is_read_as_diffusers_reads_it(make_job: Make, tmp_path: Path) -> None:
    shared = loaded("shapes-sd")
    layers = {
        "unet": layers_of(shared.pipe.unet, "attn", "ff", "conv1"),
        "text_encoder": layers_of(shared.pipe.text_encoder),
    }
    paths = {"kohya": write_lora(tmp_path / "k.safetensors", shared.pipe, layers, rank=4, alpha=2.0)}
    add_loras(shared, paths)
    loras = (LoraUse("kohya", 0.9),)
    job = make_job("a", model="shapes-sd", nag=NAG, loras=loras, **CFG)
    (image,) = generate(shared, job)
    shared.remove_adapter("kohya")
    pipe = pipelines.load(shared.entry, CPU)
    use_peft(pipe, paths, loras)
    (expected,) = generate(SharedModel(shared.entry, pipe), *without_loras(job))
    assert distance(image, expected) < LIKE_DIFFUSERS
    assert distance(image, generate(shared, *without_loras(job))[0]) > 10 * LIKE_DIFFUSERS


def test_a_lora_of_the_catalog_stays_in_force_beneath(flux: tuple[SharedModel, Paths], make_job: Make) -> None:
    shared, paths = flux
    pipe = pipelines.load(shared.entry, CPU)
    use_peft(pipe, paths, [EVERYTHING])
    layered = SharedModel(shared.entry, pipe)
    add_loras(layered, {"attention": paths["attention"]})
    (image,) = generate(layered, make_job("a", loras=(ATTENTION,), nag=NAG))
    (expected,) = generate(shared, make_job("a", loras=(ATTENTION, EVERYTHING), nag=NAG))
    assert distance(image, expected) < LIKE_DIFFUSERS


def test_one_that_is_let_go_leaves_no_trace(make_job: Make, tmp_path: Path) -> None:
    shared = loaded("shapes-sd")
    before, job = structure(shared), make_job("a", model="shapes-sd", nag=NAG, **CFG)
    (plain,) = generate(shared, job)
    paths = write_loras(tmp_path, shared.pipe, "unet")
    add_loras(shared, paths)
    generate(shared, replace(job, request=replace(job.request, loras=THREE)))
    assert structure(shared) == before  # also while they are there, between calls
    for lora in paths:
        shared.remove_adapter(lora)
    assert structure(shared) == before
    assert np.array_equal(generate(shared, job)[0].pixels, plain.pixels)


def structure(model: SharedModel) -> list[Any]:
    """Modules and their hooks, and where the weights are."""
    parts = [part for part in model.pipe.components.values() if isinstance(part, torch.nn.Module)]
    return [
        [(name, type(module), len(module._forward_hooks)) for part in parts for name, module in part.named_modules()],
        [(name, tensor.data_ptr()) for part in parts for name, tensor in part.state_dict().items()],
    ]


def test_hooks_are_gone_after_a_call_that_raises(
    flux: tuple[SharedModel, Paths], monkeypatch: pytest.MonkeyPatch, make_job: Make
) -> None:
    shared, _ = flux
    before = structure(shared)
    monkeypatch.setattr(adapters, "_add_product", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        generate(shared, make_job("a", loras=(ATTENTION,)))
    assert structure(shared) == before


def test_kept_text_keys_are_those_of_the_rows_loras(model: tuple[SharedModel, Paths], make_job: Make) -> None:
    """CFG's plain row of the second request stands between the guided ones, and leaves before the first has ended."""
    shared, _ = model
    rows: list[Any] = [((EVERYTHING,), {**CFG, "nag": NAG, "num_inference_steps": 5})]
    rows += [(THREE, {**CFG, "nag": replace(NAG, negative_prompt="a triangle"), "num_inference_steps": 3})]
    jobs = batch(make_job, shared, rows)
    for job, image in zip(jobs, generate(shared, *jobs), strict=True):
        assert difference(image, generate(shared, job)[0]) <= 1


def test_prompts_are_encoded_with_the_loras_of_the_text_encoders_alone(
    flux: tuple[SharedModel, Paths], make_job: Make
) -> None:
    shared, _ = flux
    memo, recorder = EncoderMemo(2**24), Recorder()
    for misses, loras in enumerate([NONE, (TEXT,), (replace(TEXT, scale=0.3),)], start=1):
        generate(shared, make_job("a", loras=loras), memo=memo, recorder=recorder)
        assert recorder.of(Event.PROMPT_MISS) == misses
    generate(shared, make_job("b", loras=(ATTENTION, TEXT)), memo=memo, recorder=recorder)
    generate(shared, make_job("c", loras=(ATTENTION,)), memo=memo, recorder=recorder)
    assert (recorder.of(Event.PROMPT_MISS), recorder.of(Event.PROMPT_HIT)) == (3, 2)


#: Families with another attention, text inside the joint sequence, or hooks of guidance on layers that are adapted.
FAMILIES = ("sdxl", "sd3", "qwen-image", "sana", "chroma", "auraflow", "z-image", "krea2")


#: Layers that are given other rows than the call's.
WITHOUT_ROWS = {"z-image": "embedder", "krea2": "layerwise"}


@pytest.mark.parametrize("name", slow_but(("sd3",), FAMILIES))
def test_every_linear_layer_of_a_family_can_be_adapted(name: str, make_job: Make, tmp_path: Path) -> None:
    shared, side = tiny_model(name), image_side(name)
    denoiser = "unet" if hasattr(shared.pipe, "unet") else "transformer"
    module = getattr(shared.pipe, denoiser)
    names = [
        layer
        for layer in layers_of(module)
        if getattr(module.get_submodule(layer), "groups", 1) == 1 and (WITHOUT_ROWS.get(name) or " ") not in layer
    ]
    paths = {
        f"{i}": write_lora(tmp_path / f"{i}.safetensors", shared.pipe, {denoiser: names}, seed=i) for i in range(2)
    }
    add_loras(shared, paths)
    nags = [Guidance(4.0, 2.5, 0.5, 1.0, "a red shape"), None, Guidance(2.0, 2.0, 0.25, 1.0, "")]
    jobs = [
        make_job(
            f"{i}", seed=i, width=side, height=side, nag=nags[i], num_inference_steps=2,
            loras=(LoraUse(f"{i}", 1.0 - i / 2),) if i < 2 else (),
        )
        for i in range(3)
    ]  # fmt: skip
    for job, image in zip(jobs, generate(shared, *jobs), strict=True):
        (alone,) = generate(shared, job)
        assert distance(image, alone) < LIKE_DIFFUSERS, job.id
        if job.request.loras:
            assert distance(image, generate(shared, *without_loras(job))[0]) > LIKE_DIFFUSERS, job.id


@pytest.mark.parametrize("words", [("layers",), ("cap_embedder",)])
def test_loras_of_layers_without_rows_run_alone(words: tuple[str, ...], make_job: Make, tmp_path: Path) -> None:
    """Z-Image embeds the tokens of all rows as one sequence."""
    shared, side = tiny_model("z-image"), image_side("z-image")
    names = layers_of(shared.pipe.transformer, *words)
    add_loras(shared, {"l": write_lora(tmp_path / "l.safetensors", shared.pipe, {"transformer": names})})
    jobs = [make_job(f"{i}", seed=i, width=side, height=side, loras=(LoraUse("l", 1.0),) * i) for i in range(2)]
    if words == ("layers",):
        assert [image.batch_size for image in generate(shared, *jobs)] == [2, 2]
        return
    with pytest.raises(Exception, match="loras are of single rows"):
        generate(shared, *jobs)
    assert [image.batch_size for image in generate(shared, *jobs)] == [1, 1]  # from then on


@pytest.mark.slow
@pytest.mark.parametrize("offload", ["model", "group"])
def test_offloaded_models_take_loras(offload: str, flux: tuple[SharedModel, Paths], make_job: Make) -> None:
    shared, paths = flux
    entry = shared.entry.model_copy(update={"offload": offload})
    offloaded = SharedModel(entry, pipelines.load(entry, CPU))
    add_loras(offloaded, paths)
    jobs = [make_job("a", loras=THREE, nag=NAG), make_job("b", loras=(EVERYTHING,), seed=2)]
    for job, image in zip(jobs, generate(offloaded, *jobs), strict=True):
        assert difference(image, generate(shared, job)[0]) <= 1


class PackedLinear(nn.Linear):
    """As bitsandbytes' linear layers: integers in a shape of their own, which only their forward can read."""

    weight: nn.Parameter

    def __init__(self, layer: nn.Linear) -> None:
        super().__init__(layer.in_features, layer.out_features, device="meta")
        scale = layer.weight.detach().abs().amax(1, keepdim=True) / 127
        packed = (layer.weight.detach() / scale).round().to(torch.int8).view(-1, 1)
        self.weight, self.bias = nn.Parameter(packed, requires_grad=False), layer.bias
        self.register_buffer("scale", scale)

    def unpacked(self) -> torch.Tensor:
        return self.weight.view(self.out_features, -1) * self.get_buffer("scale")

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return F.linear(x, self.unpacked(), self.bias)


def pack(module: nn.Module) -> None:
    """Replaces the linear layers of a module's blocks."""
    for name in layers_of(module, "blocks"):
        parent, _, last = name.rpartition(".")
        layer = module.get_submodule(name)
        assert isinstance(layer, nn.Linear)
        setattr(module.get_submodule(parent), last, PackedLinear(layer))


def unpack(module: nn.Module) -> None:
    """Gives the layers plain weights of the same values."""
    for name, layer in list(module.named_modules()):
        if isinstance(layer, PackedLinear):
            parent, _, last = name.rpartition(".")
            plain = nn.Linear(layer.in_features, layer.out_features)
            plain.weight, plain.bias = nn.Parameter(layer.unpacked()), layer.bias
            setattr(module.get_submodule(parent), last, plain)


@pytest.mark.slow
def test_quantized_weights_take_loras(flux: tuple[SharedModel, Paths], make_job: Make) -> None:
    shared, paths = flux
    jobs = batch(make_job, shared)[:4]
    pipe = pipelines.load(shared.entry, CPU)
    pack(pipe.transformer)
    quantized = SharedModel(shared.entry, pipe)
    add_loras(quantized, paths)
    images = generate(quantized, *jobs)
    for job, image in zip(jobs, images, strict=True):
        assert difference(image, generate(quantized, job)[0]) <= 1, job.id
    unpack(pipe.transformer)
    use_peft(pipe, paths, jobs[3].request.loras)
    (expected,) = generate(SharedModel(shared.entry, pipe), *without_loras(jobs[3]))
    assert distance(images[3], expected) < LIKE_DIFFUSERS


def test_weights_that_torchao_quantizes_take_loras(flux: tuple[SharedModel, Paths], make_job: Make) -> None:
    quantization = pytest.importorskip("torchao.quantization", reason="installed by `make test-previous`")
    shared, paths = flux
    jobs = batch(make_job, shared)[:4]
    pipe = pipelines.load(shared.entry, CPU)
    quantization.quantize_(pipe.transformer, quantization.Int8WeightOnlyConfig())
    quantized = SharedModel(shared.entry, pipe)
    add_loras(quantized, paths)
    for job, image in zip(jobs, generate(quantized, *jobs), strict=True):
        (plain,) = generate(quantized, *without_loras(job))
        assert difference(image, generate(quantized, job)[0]) <= 1, job.id
        assert (distance(image, plain) > ROUNDING) == bool(job.request.loras), job.id


def test_layers_of_another_kind_are_refused_by_name(flux: tuple[SharedModel, Paths]) -> None:
    shared, paths = flux
    pipe = pipelines.load(shared.entry, CPU)
    block = pipe.transformer.transformer_blocks[0]
    block.attn.to_q = nn.Sequential(block.attn.to_q)
    with pytest.raises(LoraError, match=r"transformer_blocks\.0\.attn\.to_q: a Sequential takes no LoRA"):
        load_adapter(shared.entry, pipe, paths["attention"])


@pytest.mark.slow
def test_calls_with_loras_of_a_compiled_model_run_uncompiled(make_job: Make, tmp_path: Path) -> None:
    runs: list[int] = []

    def backend(module: Any, inputs: Any) -> Any:
        def run(*args: Any) -> Any:
            runs.append(len(args))
            return module.forward(*args)

        return run

    pipe = tiny_pipe("flux", double_blocks=1, single_blocks=1)
    entry, side = tiny_entry(TINY_CASES["flux"], pipe), image_side("flux")
    path = write_lora(tmp_path / "l.safetensors", pipe, {"transformer": layers_of(pipe.transformer)})
    options = {"width": side, "height": side}
    jobs = [make_job(f"{i}", seed=i, loras=(LoraUse("l", 0.5 * i),) * bool(i), **options) for i in range(3)]
    plain = SharedModel(entry, pipe)
    add_loras(plain, {"l": path})
    expected = [generate(plain, job)[0] for job in jobs]
    plain.close()
    pipe.transformer.compile(backend=backend)
    compiled = SharedModel(entry.model_copy(update={"compile": "denoiser"}), pipe)
    add_loras(compiled, {"l": path})
    generate(compiled, jobs[0])
    count = len(runs)
    assert count > 0
    images = generate(compiled, *jobs)
    assert [image.batch_size for image in images] == [1, 2, 2]
    assert len(runs) == 2 * count  # of the plain one's graphs alone
    for image, one in zip(images, expected, strict=True):
        assert distance(image, one) < LIKE_DIFFUSERS
    torch.compiler.reset()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda weights: {"transformer.a.dora_scale": torch.ones(1), **weights}, "DoRA is not supported"),
        (lambda weights: {"transformer.a.hada_w1_a": torch.ones(1), **weights}, "LoHa is not supported"),
        (lambda weights: {"transformer.a.lokr_w1": torch.ones(1), **weights}, "LoKr is not supported"),
        (lambda weights: {"transformer.none.lora_A.weight": torch.ones(1, 2), **weights}, "not pairs"),
        (
            lambda weights: {key.replace("attn", "attention"): value for key, value in weights.items()},
            r"transformer\.\S+attention\S+: the model has no such layer",
        ),
        (lambda weights: {key: value[:, :1] for key, value in weights.items()}, "its factors must be"),
        (lambda weights: {f"other.{key}": value for key, value in weights.items()}, r"0 of the file's \d+ layers"),
        (lambda _: {"transformer.x_embedder.weight": torch.ones(2, 2)}, "not pairs"),
    ],
)  # fmt: skip
def test_what_a_model_cannot_use_is_refused_by_name(
    flux: tuple[SharedModel, Paths], change: Callable[[dict[str, Any]], dict[str, Any]], message: str, tmp_path: Path
) -> None:
    shared, paths = flux
    weights = change(load_file(paths["attention"]))
    save_file({key: value.contiguous() for key, value in weights.items()}, tmp_path / "odd.safetensors")
    with pytest.raises(LoraError, match=message):
        load_adapter(shared.entry, shared.pipe, tmp_path / "odd.safetensors")


def test_what_is_no_safetensors_file_is_refused(flux: tuple[SharedModel, Paths], tmp_path: Path) -> None:
    shared, paths = flux
    (tmp_path / "cut.safetensors").write_bytes(paths["attention"].read_bytes()[:-9])
    for name in ("cut", "missing"):
        with pytest.raises(LoraError, match="cannot be read"):
            load_adapter(shared.entry, shared.pipe, tmp_path / f"{name}.safetensors")
