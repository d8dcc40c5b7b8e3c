"""Each recipe from nothing to its pipeline folders, with a few steps a stage."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import DiffusionPipeline
from PIL import Image

from training.loop import Schedule
from training.recipe import run
from training.recipes import RECIPES
from training.shapes.world import COLORS

pytestmark = pytest.mark.slow  # trains


# Said of Wan's float32 norms under autocast, where it costs speed alone.
@pytest.mark.filterwarnings("ignore:Mismatch dtype between input and weight:UserWarning")
@pytest.mark.parametrize("name", RECIPES)
def test_a_recipe_ends_in_pipelines_that_generate(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.nn.Module, "compile", lambda *_, **__: None)  # a minute to compile, a second to run
    recipe = RECIPES[name]
    once = Schedule(steps=1, learning_rate=1e-3, warmup_steps=1)
    brief = dataclasses.replace(
        recipe,
        vae=once,
        teacher=once,
        student=once,
        vae_batch=1,
        batch=2,
        scenes=4,
        substeps=1,
        sample_colors=COLORS[:1],
    )
    run(brief, work=tmp_path / "work", out=tmp_path / "out", last_stage="export", seed=0, device=torch.device("cpu"))
    assert {folder.name for folder in (tmp_path / "out").iterdir()} == set(recipe.exports)
    with Image.open(tmp_path / "work" / "student.png") as sheet:
        assert sheet.size == (64, 3 * 64)
    for folder in (tmp_path / "out").iterdir():
        pipe = DiffusionPipeline.from_pretrained(folder)
        pipe.set_progress_bar_config(disable=True)
        made = pipe("a red circle", num_inference_steps=1, output_type="np", **recipe.call)[0]
        assert made.shape[-3:] == (64, 64, 3)
        assert np.isfinite(made).all()
        assert made.std() > 0
