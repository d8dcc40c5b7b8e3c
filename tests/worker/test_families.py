"""Batches through the pipelines of several families, decoded: NAG, CFG, prompts and seeds a row's own."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import pytest
import torch
from app.worker.batching import Row
from app.worker.denoise import Denoised, Hooks, denoise
from app.worker.prompts import PromptCache, encoding_kept

from app.catalog import Catalog, Model
from app.jobs import Guidance, Job
from app.settings import Settings
from app.worker.pipelines import takes_scale_a_row
from app.worker.recorder import Recorder
from tests.tiny import CASES

Make = Callable[..., Job]
CPU = torch.device("cpu")
TOLERANCE = 1e-4  # of pixels in [0, 1]
NAMES = (
    "flux",
    "sd",
    "sdxl",
    "sd3",
    "qwen-image",
    "sana",
    "sana-sprint",
    "pixart",
    "chroma",
    "z-image",
    "krea2",
    "auraflow",
)
BY_NAME = {case.name: case for case in CASES}
NOT_ASKED = ("guidance_scale", "width", "height")


def scale_name(pipe: Any) -> str:
    names = inspect.signature(pipe.__call__).parameters
    return "true_cfg_scale" if "true_cfg_scale" in names else "guidance_scale"


@pytest.mark.parametrize("cfg", [False, True])
@pytest.mark.parametrize("name", NAMES)
def test_a_picture_is_the_same_alone_and_among_others(name: str, cfg: bool, make_job: Make) -> None:
    case = BY_NAME[name]
    if cfg and case.cfg is None:
        pytest.skip("has no CFG")
    pipe = case.make(0)
    pipe.set_progress_bar_config(disable=True)
    if pipe.vae.config.get("shift_factor", 0.0) is None:
        pipe.vae.register_to_config(shift_factor=0.0)
    embedded = Catalog.load(Settings()).models["shapes-flux"]
    call = {key: value for key, value in case.options.items() if key not in NOT_ASKED}
    if "use_resolution_binning" in inspect.signature(pipe.__call__).parameters:
        call["use_resolution_binning"] = False
    entry: Model = embedded.model_copy(
        update={"id": name, "call": call, "cfg": scale_name(pipe), "embedded_guidance": None}
    )
    scales = [2.0, 5.0, 3.0] if cfg and takes_scale_a_row(pipe) else [3.0] * 3 if cfg else [1.0] * 3
    side = case.options.get("height", 16)
    negatives = ["a triangle", None, "a red square"]
    nags = [Guidance(4.0, 2.5, 0.5, 1.0, "a red shape"), None, Guidance(2.0, 2.0, 0.25, 0.4, "")]
    jobs = [
        make_job(
            f"{i}", prompt=("a red circle", "a blue square", "a green circle")[i], seed=i, width=side, height=side,
            num_inference_steps=2 if name == "sana-sprint" else 3, guidance_scale=scales[i],
            negative_prompt=negatives[i], nag=nags[i],
        )
        for i in range(3)
    ]  # fmt: skip
    seen: list[str] = []
    hooks = Hooks(
        on_denoised=lambda: seen.append("denoised"),
        encoding=partial(encoding_kept, model=name, cache=PromptCache(2**30), recorder=Recorder()),
    )

    def run(*some: Job, hooks: Hooks | None = None) -> Denoised:
        return denoise(pipe, entry, [Row(job, 0) for job in some], CPU, hooks)

    expected = [run(job) for job in jobs]
    together = run(*jobs, hooks=hooks)
    again = run(*jobs, hooks=hooks)
    assert seen == ["denoised"] * 2
    for i, alone in enumerate(expected):
        assert np.abs(alone.pixels[0] - together.pixels[i]).max() < TOLERANCE, i
        assert alone.applied[0] == together.applied[i]
    assert np.abs(again.pixels - together.pixels).max() < TOLERANCE
    assert max(np.abs(each.pixels - expected[0].pixels).max() for each in expected[1:]) > 10 * TOLERANCE


def test_nothing_of_a_call_stays_on_the_pipeline(make_job: Make) -> None:
    pipe: Any = BY_NAME["sd"].make(0)
    pipe.set_progress_bar_config(disable=True)
    entry = (
        Catalog.load(Settings())
        .models["shapes-flux"]
        .model_copy(update={"call": {}, "cfg": "guidance_scale", "embedded_guidance": None})
    )
    before = dict(vars(pipe)), dict(vars(pipe.scheduler))
    denoise(pipe, entry, [Row(make_job("a", width=16, height=16), 0)], CPU)
    assert (dict(vars(pipe)), dict(vars(pipe.scheduler))) == before
