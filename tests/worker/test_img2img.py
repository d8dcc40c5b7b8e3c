"""Edits: steps, masks, pipelines of a task, and joined calls that change no other's image."""

from __future__ import annotations

import inspect
import io
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageDraw

from app.catalog import Catalog, Model
from app.jobs import Guidance, Job
from app.loading.pipeline import pipeline_class
from app.loading.tasks import task_class
from app.settings import Settings
from app.worker.engine import pipelines, shared_model
from app.worker.engine.job_inputs import strength_of
from app.worker.engine.shared_model import SharedModel
from app.worker.protocol import JobControl
from tests.inputs import edit
from tests.pictures import png
from tests.worker.generate import CPU, generate, levels
from tests.worker.tiny_models import TINY_CASES, image_side, tiny_entry, tiny_pipe

Make = Callable[..., Job]
TOLERANCE = 2e-4  # of pixels in [0, 1]; sums in another order differ in the last float32 digits
NAG = Guidance(scale=5.0, tau=2.5, alpha=0.25, end=1.0, negative_prompt="a red shape")
EMBEDDED = Catalog.load(Settings()).models
KNOWN = Catalog.known(Settings())


def shape(color: str, background: str = "white") -> Image.Image:
    image = Image.new("RGB", (64, 64), background)
    ImageDraw.Draw(image).ellipse((16, 16, 48, 48), fill=color)
    return image


def right_half(side: int = 64) -> Image.Image:
    mask = Image.new("L", (side, side), 0)
    mask.paste(255, (side // 2, 0, side, side))
    return mask


FILES = {
    "red": png(shape("red")),
    "blue": png(shape("blue", "black")),
    "right": png(right_half()),
    "soft": png(Image.linear_gradient("L").resize((64, 64))),
}


def test_a_part_of_the_steps_runs_exactly_or_one_more_where_a_pipeline_rounds_up() -> None:
    for whole in range(1, 301):
        for part in range(1, whole + 1):
            strength = strength_of(part, whole)
            assert 0 < strength <= 1
            begin = whole - min(whole * strength, whole)  # as diffusers' pipelines find their first step
            rounded_up, rounded_down = whole - int(max(begin, 0)), min(int(whole * strength), whole)
            assert rounded_down == part
            assert rounded_up - part in (0, 1)


def test_the_steps_reported_are_those_that_run(shared: SharedModel, make_job: Make) -> None:
    for strength, steps in ((0.01, 1), (0.5, 3), (0.7, 4), (1.0, 6)):
        calls: list[Any] = []
        job = make_job("a", num_inference_steps=6, **edit(strength, "red"))
        with_hook = shared.pipe.transformer.register_forward_pre_hook(lambda *_, calls=calls: calls.append(1))
        generate(shared, job, files=FILES)
        with_hook.remove()
        assert len(calls) == job.request.steps == steps


def test_the_less_strength_the_nearer_to_the_source(shared: SharedModel, make_job: Make) -> None:
    own = generate(shared, make_job("own"))[0]
    files = {"own": png(Image.fromarray(levels(own).astype(np.uint8)))}

    def distance(strength: float) -> float:
        job = make_job("a", prompt="a green square", num_inference_steps=50, **edit(strength, "own"))
        return float(np.abs(generate(shared, job, files=files)[0].pixels - levels(own) / 255).mean())

    little, half, whole = distance(0.01), distance(0.5), distance(1.0)
    assert little < 0.02
    assert little < half < whole


def test_what_the_mask_hides_stays_to_the_bit(shared: SharedModel, make_job: Make) -> None:
    job = make_job("a", prompt="a green square", num_inference_steps=4, **edit(1.0, "red", "right"), nag=NAG)
    made = generate(shared, job, files=FILES)[0]
    before = np.asarray(shape("red"))
    assert np.array_equal(levels(made)[:, :32], before[:, :32])
    assert np.abs(levels(made)[:, 32:] - before[:, 32:]).mean() > 5
    assert made.applied.applied


def test_a_soft_mask_blends(shared: SharedModel, make_job: Make) -> None:
    """The same mask cut at its middle is what the denoiser sees, so the two results differ by the blending alone."""
    cut = Image.open(io.BytesIO(FILES["soft"])).point(lambda value: 255 * (value >= 128))
    files = FILES | {"cut": png(cut)}
    jobs = [
        make_job(mask, prompt="a green square", num_inference_steps=4, **edit(1.0, "red", mask))
        for mask in ("soft", "cut")
    ]
    soft, hard = (image.pixels for image in generate(shared, *jobs, files=files))
    before = np.asarray(shape("red"), dtype=np.float32) / 255
    share = np.asarray(Image.open(io.BytesIO(FILES["soft"])), dtype=np.float32)[..., None] / 255
    regenerated = np.asarray(cut) == 255
    blended = before * (1 - share) + hard * share
    assert np.allclose(soft[regenerated], blended[regenerated], atol=TOLERANCE)
    assert np.abs(soft - hard)[regenerated].max() > 0.1


@pytest.mark.slow
@pytest.mark.parametrize(
    "name", [name for name, model in EMBEDDED.items() if model.inputs.tasks and name != "shapes-flux"]
)
def test_every_embedded_model_does_the_edits_it_offers(name: str, make_job: Make) -> None:
    entry = EMBEDDED[name]
    model = SharedModel(entry, pipelines.load(entry, CPU))
    channels = model.pipe.unet.config.in_channels
    masks = {"img2img": None, "inpaint": "right"}
    jobs = [
        make_job(
            f"{task} {scale}", prompt="a blue square", num_inference_steps=4, guidance_scale=scale, nag=NAG,
            **edit(0.75, "red", masks[task]),
        )
        for task in entry.inputs.tasks for scale in (1.0, 3.0)
    ]  # fmt: skip
    for job, image in zip(jobs, generate(model, *jobs, files=FILES), strict=True):
        assert image.applied.applied
        assert np.abs(levels(image)[:, 32:] - np.asarray(shape("red"))[:, 32:]).mean() > 5
        if job.request.task == "inpaint":
            assert np.array_equal(levels(image)[:, :32], np.asarray(shape("red"))[:, :32])
    assert model.pipe.unet.config.in_channels == channels


def test_generations_and_edits_share_denoiser_calls_and_change_no_other(shared: SharedModel, make_job: Make) -> None:
    weak = Guidance(3.0, 2.0, 0.5, 0.5, "a square")
    jobs = [
        make_job("plain", seed=1, num_inference_steps=3),
        make_job("guided", seed=2, num_inference_steps=5, nag=NAG),
        make_job("edit", seed=3, num_inference_steps=4, **edit(0.7, "red"), nag=NAG),
        make_job("other edit", seed=4, num_inference_steps=9, **edit(0.3, "blue"), nag=weak),
        make_job("masked", seed=5, num_inference_steps=4, **edit(1.0, "blue", "right")),
        make_job("cfg", seed=6, num_inference_steps=3, **edit(0.7, "red", "soft"), guidance_scale=3.0),
    ]
    joined = generate(shared, *jobs, files=FILES)
    for job, image in zip(jobs, joined, strict=True):
        alone = generate(shared, job, files=FILES)[0]
        assert np.abs(alone.pixels - image.pixels).max() < TOLERANCE, job.id
        assert alone.applied == image.applied
        assert image.batch_size >= 5
    assert np.abs(joined[0].pixels - joined[2].pixels).max() > TOLERANCE


def test_the_pipeline_of_a_task_is_made_once(entry: Model, make_job: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    model, made = SharedModel(entry, pipelines.load(entry, CPU)), []

    def task_pipeline(pipe: Any, task: str) -> Any:
        made.append(task)
        return original(pipe, task)

    original = shared_model.task_pipeline  # type: ignore[attr-defined]
    monkeypatch.setattr(shared_model, "task_pipeline", task_pipeline)
    parts = {name: id(part) for name, part in model.pipe.components.items()}
    edits = [{}, edit(0.5, "red"), edit(0.5, "red", "right")]
    for _ in range(2):
        generate(model, *(make_job(f"{i}", **fields) for i, fields in enumerate(edits)), files=FILES)
    assert made == ["generate", "img2img", "inpaint"]
    assert {name: id(part) for name, part in model.pipe.components.items()} == parts
    own = model.own_pipeline("inpaint")
    assert own.transformer is model.pipe.transformer
    assert own.scheduler is not model.own_pipeline("inpaint").scheduler
    model.close()


def test_a_closed_model_is_as_it_was_loaded(entry: Model, make_job: Make) -> None:
    pipe: Any = pipelines.load(entry, CPU)
    attention = pipe.transformer.transformer_blocks[0].attn
    modules = [part for part in pipe.components.values() if hasattr(part, "modules")]

    def state() -> list[Any]:
        every = [module for part in modules for module in part.modules()]
        return [
            [(vars(module).keys(), module._compiled_call_impl, list(module._forward_pre_hooks)) for module in every],
            [type(part) for part in pipe.components.values()],
            type(attention.processor),
            dict(vars(pipe.scheduler)),
            dict(pipe.config),
            {id(parameter) for part in modules for parameter in part.parameters()},
            "decode" in vars(pipe.vae),
        ]

    before = state()
    model = SharedModel(entry, pipe)
    assert state() != before
    generate(model, make_job("a", nag=NAG), make_job("b", **edit(0.5, "red", "right"), nag=NAG), files=FILES)
    model.close()
    assert state() == before


@pytest.mark.parametrize("name", [name for name, entry in KNOWN.items() if entry.kind == "image"])
def test_an_entry_names_the_edits_that_diffusers_can(name: str) -> None:
    kind = pipeline_class(KNOWN[name])
    assert set(KNOWN[name].inputs.tasks) - {"edit"} == {
        task for task in ("img2img", "inpaint") if task_class(kind, task) is not None
    }


def _edits_of_families() -> list[Any]:
    """Name, task and whether with CFG, of every small pipeline that diffusers has the task's pipeline for."""
    names = ("flux", "sdxl", "sd3", "qwen-image", "z-image", "chroma", "sana-sprint", "flux2-klein")
    return [
        pytest.param(
            name,
            task,
            cfg,
            id=f"{name}-{task}{'-cfg' if cfg else ''}",
            marks=() if name == "flux" else pytest.mark.slow,
        )
        for name in names
        for task in ("img2img", "inpaint")
        for cfg in ((False,) if TINY_CASES[name].cfg is None else (False, True))
    ]


@pytest.mark.parametrize(("name", "task", "cfg"), _edits_of_families())
def test_an_edit_of_a_family_is_the_same_alone_and_joined(name: str, task: str, cfg: bool, make_job: Make) -> None:
    pipe = tiny_pipe(name, **({"channels": 16} if name == "sd3" else {}))  # its inpainting takes no fewer
    kind, side, masked = task_class(type(pipe), task), image_side(name), task == "inpaint"
    if kind is None:
        pytest.skip("diffusers has no pipeline for it")
    if cfg and "negative_prompt" not in inspect.signature(kind.__call__).parameters:
        pytest.skip("takes no negative prompt")
    model = SharedModel(tiny_entry(TINY_CASES[name], pipe), pipe)
    files = {color: png(Image.new("RGB", (side, side), color)) for color in ("red", "blue")}
    files["mask"] = png(right_half(side))
    nags = [Guidance(4.0, 2.5, 0.5, 1.0, "a red shape"), None, Guidance(2.0, 2.0, 0.25, 0.4, "")]
    jobs = [
        make_job(
            f"{i}", prompt=("a red circle", "a blue square", "a green circle")[i], seed=i, width=side, height=side,
            num_inference_steps=4, guidance_scale=(2.0, 5.0, 1.0)[i] if cfg else 1.0, nag=nags[i],
            negative_prompt=("a triangle", None, "a square")[i],
            **edit((0.5, 0.75, 0.5)[i], ("red", "blue", "red")[i], "mask" if masked else None),
        )
        for i in range(3)
    ]  # fmt: skip
    control = JobControl()
    joined = generate(model, *jobs, files=files, control=control)
    for i, job in enumerate(jobs):
        alone = generate(model, job, files=files)[0]
        assert np.abs(alone.pixels - joined[i].pixels).max() < TOLERANCE, i
        assert alone.applied == joined[i].applied
        assert joined[i].batch_size == 3
    if masked:
        blue = np.broadcast_to((0.0, 0.0, 1.0), (side, side // 2, 3))
        assert np.array_equal(joined[1].pixels[:, : side // 2], blue)
