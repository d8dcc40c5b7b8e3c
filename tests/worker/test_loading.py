"""Every catalog entry through the real loading path, from small random weights in its repository's layout."""

from __future__ import annotations

import itertools
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import QwenImageEditPlusPipeline
from safetensors.torch import load_file, save_file

import nag
from app.catalog import Catalog, Lora, Model, Quantization, Scheduler, Weights
from app.jobs import Generation, Guidance, Job
from app.loading.errors import LoadError
from app.loading.pipeline import load, scheduler_class
from app.settings import Settings
from app.worker.engine.shared_model import SharedModel
from app.worker.models.warmup import trial_files, trial_inputs
from app.worker.outputs.postprocess import NAN, to_job_output
from app.worker.prompts.encoder_memo import EncoderMemo
from app.worker.protocol import JobOutput
from app.worker.recorder import Event, Recorder
from nag.families.family import denoisers_of
from tests.hub import pipelines
from tests.hub.repositories import small_size
from tests.hub.weights import peft, save_lora
from tests.tiers import slow_but
from tests.videos import read
from tests.worker import generate as calls
from tests.worker.generate import CPU
from tests.worker.small import in_folder

#: diffusers' own, at every use of a scheduler and of a model.
pytestmark = [
    pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning"),
    pytest.mark.filterwarnings("ignore:`FluxPosEmbed` is deprecated:FutureWarning"),
]
TOLERANCE = 1e-4  # of pixels in [0, 1]
KNOWN = Catalog.known(Settings())
WITH_LORA = [name for name, entry in KNOWN.items() if entry.lora]
WITH_SCHEDULER = [name for name, entry in KNOWN.items() if entry.scheduler]
#: Entries whose pipelines keep the text's keys of one request between its steps, so that no other can join.
ALONE = ("qwen-image21-turbo",)
#: Entries whose text encoder reads the images too, so that nothing is kept of it for other requests.
READ_WITH_IMAGES = ("qwen-image-edit-2511", "qwen-image-edit-2511-lightning")


@pytest.fixture(autouse=True)
def _without_a_network(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)


@pytest.fixture(autouse=True)
def _of_small_references(monkeypatch: pytest.MonkeyPatch) -> None:
    """Qwen-Image-Edit scales each image to a megapixel, whose tokens would outnumber the text's by far."""
    monkeypatch.setattr(f"{QwenImageEditPlusPipeline.__module__}.calculate_dimensions", lambda *_: (64, 64))


def loaded(entry: Model) -> Any:
    return load(entry, CPU)


def request(entry: Model, **changes: Any) -> Generation:
    """The entry's defaults, at a small size and in few steps, guided."""
    width, height, frames = small_size(entry)
    steps = entry.num_inference_steps
    assert entry.nag is not None
    nag = Guidance(**entry.nag.model_dump(), negative_prompt="a triangle")
    return Generation(
        **{
            "model": entry.id, "prompt": "a red circle", "negative_prompt": None, "seed": 7,
            "num_inference_steps": max(steps.min, min(2, steps.max)), "guidance_scale": entry.guidance_scale.default,
            "width": width, "height": height, "n": 1, "output_format": "png", "output_compression": 100, "nag": nag,
            "num_frames": frames if entry.kind == "video" else None, "inputs": trial_inputs(entry),
        } | changes
    )  # fmt: skip


def files_of(entry: Model) -> dict[str, bytes]:
    """What the requests start from, of their size."""
    width, height, _ = small_size(entry)
    sizes = {
        "width": entry.width.model_copy(update={"default": width}),
        "height": entry.height.model_copy(update={"default": height}),
    }
    return trial_files(entry.model_copy(update=sizes))


def generate(pipe: Any, entry: Model, **changes: Any) -> tuple[np.ndarray, bool]:
    """Pixels of one image or video, and whether it was guided."""
    model = SharedModel(entry, pipe)
    made = calls.generate(model, Job("a", request(entry, **changes)), files=files_of(entry))[0]
    model.close()
    return made.pixels, made.applied.applied


@pytest.mark.parametrize("name", slow_but(("shapes-flux", "sdxl-lightning"), KNOWN))
def test_an_entry_loads_and_makes_guided_images_alone_and_joined(name: str, tmp_path: Path) -> None:
    entry = in_folder(KNOWN[name], tmp_path)
    pipe = loaded(entry)
    assert type(pipe).__name__ == entry.pipeline
    dtypes = {"default": entry.dtype, **entry.component_dtypes}
    for part in ("transformer", "unet", "vae"):
        if getattr(pipe, part, None) is not None:
            assert getattr(pipe, part).dtype == getattr(torch, dtypes.get(part, entry.dtype))
    guided, applied = generate(pipe, entry)
    width, height, frames = small_size(entry)
    assert guided.shape == ((height, width, 3) if entry.kind == "image" else (frames, height, width, 3))
    assert np.isfinite(guided).all()
    assert applied
    check_joined(pipe.to(dtype=torch.float32), entry)  # in half precision sums in another order differ too much


def check_joined(pipe: Any, entry: Model) -> None:
    model, memo, recorder = SharedModel(entry, pipe), EncoderMemo(2**30), Recorder()
    jobs = [
        Job("guided", request(entry)),
        Job("plain", request(entry, nag=None)),
        Job("other", request(entry, prompt="a blue square", seed=8)),
    ]
    files = files_of(entry)
    alone = [calls.generate(model, job, files=files)[0] for job in jobs]
    joined = calls.generate(model, *jobs, files=files, memo=memo, recorder=recorder)
    misses = recorder.of(Event.PROMPT_MISS)
    again = calls.generate(model, *jobs, files=files, memo=memo, recorder=recorder)
    for expected, *images in zip(alone, joined, again, strict=True):
        for image in images:
            assert np.abs(image.pixels - expected.pixels).max() < TOLERANCE
            assert image.applied == expected.applied
            assert image.batch_size == (1 if entry.id in ALONE else 3)
    assert recorder.of(Event.PROMPT_MISS) == misses
    assert (misses == 0) == (entry.id in READ_WITH_IMAGES)
    guided, *others = (image.pixels for image in alone)
    assert all(np.abs(guided - other).max() > 2 * TOLERANCE for other in others)


@pytest.mark.parametrize("name", slow_but(["qwen-image-lightning"], WITH_LORA))
def test_its_loras_change_the_weights_for_good(name: str, tmp_path: Path) -> None:
    entry = in_folder(KNOWN[name], tmp_path)
    without = denoisers_of(loaded(entry.model_copy(update={"lora": ()})))
    fused = denoisers_of(loaded(entry))
    assert len(fused) == len(entry.lora)  # one each
    for before, after in zip(without, fused, strict=True):
        changed = [key for key, value in after.state_dict().items() if not torch.equal(value, before.state_dict()[key])]
        assert changed
        assert all(".to_" in key for key in changed)
        assert before.state_dict().keys() == after.state_dict().keys()  # no adapter is left beside them


@pytest.mark.parametrize("name", slow_but(["sdxl-lightning"], WITH_SCHEDULER))
def test_its_scheduler_takes_the_place_of_the_repositorys(name: str, tmp_path: Path) -> None:
    entry = in_folder(KNOWN[name], tmp_path)
    assert entry.scheduler is not None
    pipe = loaded(entry)
    assert type(pipe.scheduler).__name__ == entry.scheduler.name
    assert {key: pipe.scheduler.config[key] for key in entry.scheduler.changes} == entry.scheduler.changes


@pytest.mark.parametrize("name", ["wan21-lightx2v", "wan22-lightning"])
def test_wan_runs_at_the_timesteps_of_its_distillation(name: str, tmp_path: Path) -> None:
    scheduler = loaded(in_folder(KNOWN[name], tmp_path)).scheduler
    scheduler.set_timesteps(4)
    assert scheduler.timesteps.tolist() == pytest.approx([1000, 937.5, 833.3, 625], abs=1.1)


def euler_weights(sigmas: list[float]) -> list[float]:
    """The share of each model output in the last sample by Euler's steps, in float64."""
    return [after - before for before, after in itertools.pairwise(sigmas)]


@pytest.mark.parametrize("name", ["wan21-lightx2v", "wan22-lightning"])
def test_wan_steps_by_euler(name: str) -> None:
    """LightX2V distils for Euler at a shift of 5: the sample is the noise plus these shares of the four outputs."""
    entry_scheduler = KNOWN[name].scheduler
    assert entry_scheduler is not None
    kind = scheduler_class(KNOWN[name], entry_scheduler)
    shares = []
    for number in range(4):
        scheduler = kind(**entry_scheduler.changes)
        scheduler.set_timesteps(4)
        sample = torch.zeros(1, dtype=torch.float64)
        for step, timestep in enumerate(scheduler.timesteps):
            output = torch.full((1,), float(step == number), dtype=torch.float64)
            sample = scheduler.step(output, timestep, sample, return_dict=False)[0]
        shares.append(sample.item())
    assert shares == pytest.approx([-0.0625, -0.1042, -0.2083, -0.625], abs=1e-3)
    assert shares == pytest.approx(euler_weights(scheduler.sigmas.double().tolist()), abs=1e-6)


@pytest.fixture(scope="module")
def hyper(tmp_path_factory: pytest.TempPathFactory) -> Model:
    """An entry with a LoRA and a scheduler."""
    return in_folder(KNOWN["sdxl-hyper"], tmp_path_factory.mktemp("hyper"))


def to_q(pipe: Any) -> torch.Tensor:
    """What a LoRA adds to the first query projection, for one input."""
    attention = next(module for name, module in pipe.unet.named_modules() if name.endswith("attn1"))
    return attention.to_q(torch.ones(1, attention.to_q.in_features))


@pytest.mark.slow
def test_a_lora_beside_the_weights_does_what_a_fused_one_does(hyper: Model) -> None:
    def entry(scale: float, fuse: bool) -> Model:
        lora = hyper.lora[0].model_copy(update={"scale": scale, "fuse": fuse})
        return hyper.model_copy(update={"lora": (lora,)})

    plain = to_q(loaded(hyper.model_copy(update={"lora": ()})))
    whole, half = (to_q(loaded(entry(scale, True))) - plain for scale in (1.0, 0.5))
    torch.testing.assert_close(whole, 2 * half)
    beside = loaded(entry(0.5, False))
    assert beside.get_active_adapters() == ["lora_0"]
    torch.testing.assert_close(to_q(beside) - plain, half)
    # One of each.
    two = hyper.model_copy(update={"lora": (*entry(0.5, True).lora, *entry(0.5, False).lora)})
    torch.testing.assert_close(to_q(loaded(two)) - plain, whole)


def test_the_denoisers_weights_may_be_another_files(tmp_path: Path) -> None:
    entry = in_folder(KNOWN["sdxl-lightning"], tmp_path)
    assert entry.denoiser is not None
    there = load_file(Path(entry.denoiser.repository) / entry.denoiser.weight_name)
    state = loaded(entry).unet.state_dict()
    assert all(torch.equal(state[key], value.float()) for key, value in there.items())
    own = loaded(entry.model_copy(update={"denoiser": None})).unet.state_dict()
    assert not all(torch.equal(own[key], value) for key, value in there.items())


def test_its_vae_may_be_another_repositorys(tmp_path: Path) -> None:
    entry = in_folder(KNOWN["sdxl"], tmp_path)
    assert entry.vae is not None
    there = load_file(Path(entry.vae.repository) / "diffusion_pytorch_model.safetensors")
    vae = loaded(entry).vae
    assert all(torch.equal(vae.state_dict()[key], value) for key, value in there.items())
    assert not vae.config.force_upcast
    # One file of it, in the architecture of the entry's own.
    file = entry.vae.model_copy(update={"weight_name": "diffusion_pytorch_model.safetensors"})
    vae = loaded(entry.model_copy(update={"vae": file})).vae
    assert all(torch.equal(vae.state_dict()[key], value) for key, value in there.items())
    assert vae.config.force_upcast


def test_a_component_may_be_left_out(tmp_path: Path) -> None:
    entry = in_folder(KNOWN["ernie-image-turbo"], tmp_path)
    assert (loaded(entry).pe, loaded(entry).pe_tokenizer) == (None, None)


def test_transparent_pixels_lie_over_white(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    entry = in_folder(KNOWN["qwen-image21-turbo"], tmp_path)
    pipe = loaded(entry)
    pixel = torch.tensor([1.0, -1.0, -1.0, 0.0]).view(1, 4, 1, 1, 1)  # red, half transparent
    monkeypatch.setattr(pipe.vae, "decode", lambda latents, **_: (pixel.expand(1, 4, 1, 64, 64),))
    pixels, _ = generate(pipe, entry)
    assert np.allclose(pixels, (1.0, 0.5, 0.5))


@pytest.mark.slow
@pytest.mark.parametrize("offload", ["model", "group"])
def test_offloaded_it_makes_the_same_picture(hyper: Model, offload: str) -> None:
    plain, _ = generate(loaded(hyper), hyper)
    pipe = loaded(hyper.model_copy(update={"offload": offload}))
    moved, applied = generate(pipe, hyper)
    assert applied
    assert np.abs(moved - plain).max() < 1e-4
    hook = "_hf_hook" if offload == "model" else "_diffusers_hook"
    assert any(hasattr(module, hook) for module in pipe.unet.modules())


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::DeprecationWarning:torch")
def test_its_denoiser_is_to_be_compiled(hyper: Model) -> None:
    pipe = loaded(hyper.model_copy(update={"compile": "denoiser"}))
    assert pipe.unet._compiled_call_impl is not None
    assert nag.supports(pipe)


@pytest.mark.slow
def test_a_video_has_the_sound_that_the_pipeline_makes_for_it(tmp_path: Path) -> None:
    entry = in_folder(KNOWN["ltx23-distilled"], tmp_path)
    pipe = loaded(entry).to(dtype=torch.float32)
    width, height, frames = small_size(entry)
    arguments = {
        "prompt": ["a red circle"], "width": width, "height": height, "num_frames": frames, "num_inference_steps": 8,
        "guidance_scale": 1.0, "output_type": "np", **entry.call,
    }  # fmt: skip
    with torch.no_grad():
        plain = pipe(**arguments, generator=[torch.Generator().manual_seed(7)])
    model = SharedModel(entry, pipe)
    jobs = [Job("a", request(entry, nag=None, fps=24, video_codec="h264")), Job("b", request(entry, nag=None, seed=8))]
    made, other = calls.generate(model, *jobs)
    model.close()
    assert made.sound is not None
    assert other.sound is not None
    assert made.sound.rate == pipe.vocoder.config.output_sampling_rate
    assert np.abs(made.sound.samples - plain.audio[0].numpy()).max() < TOLERANCE
    assert np.abs(made.sound.samples - other.sound.samples).max() > 2 * TOLERANCE
    output = to_job_output(jobs[0], [made])
    assert isinstance(output, JobOutput)
    (file,) = output.files
    assert not isinstance(file, bytes)
    with file:
        sound = read(file.read()).sound
    assert sound is not None
    assert (sound[1], len(sound[0])) == (made.sound.rate, len(made.sound.samples))
    broken = replace(made, sound=replace(made.sound, samples=made.sound.samples * np.nan))
    assert to_job_output(jobs[0], [broken]) == NAN


def test_a_videos_decoder_works_in_tiles(tmp_path: Path) -> None:
    assert loaded(in_folder(KNOWN["wan21-lightx2v"], tmp_path)).vae.use_tiling


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"repository": "nobody/nothing"}, "nobody/nothing/model_index.json is not on this machine"),
        ({"variant": "int3"}, "int3"),
        ({"pipeline": "NoSuchPipeline"}, "pipeline: diffusers .* has no NoSuchPipeline"),
        ({"pipeline": "UNet2DConditionModel"}, "pipeline: diffusers .* has no UNet2DConditionModel"),
        ({"component_dtypes": {"transformer": "float32"}}, "component_dtypes.transformer: StableDiffusionXLPipeline"),
        ({"scheduler": Scheduler(name="NoSuch")}, "scheduler: diffusers .* has no NoSuch"),
        ({"scheduler": Scheduler(name="DDIMScheduler", options={"shift": 3})}, "scheduler.options.shift: DDIM"),
        ({"lora": (Lora(repository="nobody/nothing", weight_name="x.safetensors"),)}, "nobody/nothing/x.safet"),
        ({"denoiser": Weights(repository="nobody/nothing", weight_name="x.safetensors")}, "nobody/nothing"),
        ({"lora": (), "quantization": Quantization(method="bitsandbytes-nf4", components=("unet",))}, "bitsandbytes"),
        ({"lora": (), "quantization": Quantization(method="torchao-int8", components=("unet",))}, "torchao: pip"),
    ],
)
def test_what_keeps_it_from_loading_is_said(hyper: Model, changes: dict[str, Any], said: str) -> None:
    with pytest.raises(LoadError, match=f"^sdxl-hyper: .*{said}"):
        load(hyper.model_copy(update=changes), CPU)


def test_bitsandbytes_without_a_gpu_is_refused(hyper: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("app.loading.weights.require_package", lambda entry: None)  # as if it were installed
    quantization = Quantization(method="bitsandbytes-int8", components=("unet",))
    with pytest.raises(LoadError, match=r"quantization\.method: bitsandbytes-int8 needs a GPU"):
        load(hyper.model_copy(update={"lora": (), "quantization": quantization}), CPU)


def test_weights_of_another_shape_are_refused(hyper: Model, tmp_path: Path) -> None:
    other = in_folder(KNOWN["sd35-large-turbo"], tmp_path)
    save_lora(pipelines.sd3(0).transformer, tmp_path / "sd3.safetensors", peft("transformer"))
    lora = Lora(repository=str(tmp_path), weight_name="sd3.safetensors")
    with pytest.raises(LoadError, match=r"lora\.0: .*sd3.safetensors"):
        load(hyper.model_copy(update={"lora": (lora,)}), CPU)
    save_file({"x": torch.ones(1)}, tmp_path / "x.safetensors")
    weights = Weights(repository=str(tmp_path), weight_name="x.safetensors")
    with pytest.raises(LoadError, match=r"denoiser: x.safetensors: Missing key"):
        load(other.model_copy(update={"denoiser": weights}), CPU)
    with pytest.raises(LoadError, match="lora: PixArtSigmaPipeline takes none"):
        load(in_folder(KNOWN["pixart-sigma"], tmp_path / "pixart").model_copy(update={"lora": (lora,)}), CPU)
