"""Edits by the families that diffusers has pipelines for: small random models, each row as it is alone."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from app.catalog import Catalog, Model
from app.jobs import Edit, Guidance, Job
from app.settings import Settings
from app.worker.batching import Row
from app.worker.denoise import Denoised, Hooks, denoise
from app.worker.editing import task_class
from app.worker.loading import pipeline_class
from app.worker.pipelines import takes_scale_a_row
from app.worker.prompts import PromptCache, encoding_kept
from app.worker.recorder import Recorder
from tests.pictures import png
from tests.tiny import CASES

Make = Callable[..., Job]
CPU = torch.device("cpu")
TOLERANCE = 1e-4  # of pixels in [0, 1]
KNOWN = Catalog.known(Settings())
BY_NAME = {case.name: case for case in CASES}
NOT_ASKED = ("guidance_scale", "width", "height")
STEPS = 4


def scale_name(pipe: Any) -> str:
    names = inspect.signature(pipe.__call__).parameters
    return "true_cfg_scale" if "true_cfg_scale" in names else "guidance_scale"


@pytest.mark.parametrize("name", [name for name, entry in KNOWN.items() if entry.kind == "image"])
def test_an_entry_says_what_diffusers_can(name: str) -> None:
    kind = pipeline_class(KNOWN[name])
    assert KNOWN[name].edits == tuple(task for task in ("img2img", "inpaint") if task_class(kind, task) is not None)


@pytest.mark.parametrize("cfg", [False, True])
@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize(
    "name", ["flux", "sdxl", "sd3", "qwen-image", "z-image", "chroma", "sana-sprint", "flux2-klein"]
)
def test_a_row_is_the_same_alone_and_among_others(name: str, masked: bool, cfg: bool, make_job: Make) -> None:
    case = BY_NAME[name]
    if cfg and case.cfg is None:
        pytest.skip("has no CFG")
    make: Any = case.make
    pipe = make(0, channels=16) if name == "sd3" else make(0)  # its inpainting takes no fewer
    pipe.set_progress_bar_config(disable=True)
    kind = task_class(type(pipe), "inpaint" if masked else "img2img")
    if kind is None:
        pytest.skip("diffusers has no pipeline for it")
    if cfg and "negative_prompt" not in inspect.signature(kind.__call__).parameters:
        pytest.skip("takes no negative prompt")
    if pipe.vae.config.get("shift_factor", 0.0) is None:
        pipe.vae.register_to_config(shift_factor=0.0)
    embedded = Catalog.load(Settings()).models["shapes-flux"]
    call = {key: value for key, value in case.options.items() if key not in NOT_ASKED}
    entry: Model = embedded.model_copy(
        update={"id": name, "call": call, "cfg": scale_name(pipe), "embedded_guidance": None}
    )
    scales = [2.0, 5.0, 3.0] if cfg and takes_scale_a_row(pipe) else [3.0] * 3 if cfg else [1.0] * 3
    side = case.options.get("height", 16)
    mask = Image.new("L", (side, side))
    mask.paste(255, (side // 2, 0, side, side))
    files = {color: png(Image.new("RGB", (side, side), color)) for color in ("red", "blue")} | {"mask": png(mask)}
    nags = [Guidance(4.0, 2.5, 0.5, 1.0, "a red shape"), None, Guidance(2.0, 2.0, 0.25, 0.4, "")]
    jobs = [
        make_job(
            f"{i}", prompt=("a red circle", "a blue square", "a green circle")[i], seed=i, width=side, height=side,
            num_inference_steps=STEPS, guidance_scale=scales[i], negative_prompt=("a triangle", None, "a square")[i],
            nag=nags[i], edit=Edit(0.5, ("red", "blue", "red")[i], "mask" if masked else None),
        )
        for i in range(3)
    ]  # fmt: skip
    told: list[int] = []
    hooks = Hooks(
        told.append,
        encoding=partial(encoding_kept, model=name, cache=PromptCache(2**30), recorder=Recorder()),
        files=files,
    )

    def run(*some: Job, hooks: Hooks) -> Denoised:
        return denoise(pipe, entry, [Row(job, 0) for job in some], CPU, hooks)

    expected = [run(job, hooks=Hooks(files=files)) for job in jobs]
    together = run(*jobs, hooks=hooks)
    assert told == [1, 2]
    for i, alone in enumerate(expected):
        assert np.abs(alone.pixels[0] - together.pixels[i]).max() < TOLERANCE, i
        assert alone.applied[0] == together.applied[i]
    if masked:
        assert np.array_equal(
            together.pixels[1][:, : side // 2], np.broadcast_to((0.0, 0.0, 1.0), (side, side // 2, 3))
        )
