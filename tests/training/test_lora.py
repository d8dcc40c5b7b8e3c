"""LoRAs of a style: what they learn from, and that a style is read from pixels as it was painted."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import FluxPipeline

from app.catalog import Catalog
from app.loras import check_lora, find_structure
from app.settings import Settings
from training.lora import LAYERS, MODEL, RANK, SCHEDULE, STEPS, Runs, lora_loss, record_runs, train_lora
from training.models.flux import Flux
from training.shapes.judge import read
from training.shapes.styles import STYLES
from training.shapes.world import Scenes

pytestmark = pytest.mark.slow  # trains

ENTRY = Catalog.load(Settings()).models[MODEL]


@pytest.fixture(scope="module")
def pipe() -> Any:
    pipe = FluxPipeline.from_pretrained(ENTRY.repository)
    pipe.set_progress_bar_config(disable=True)
    for name in ("transformer", "vae", "text_encoder", "text_encoder_2"):
        getattr(pipe, name).requires_grad_(False)
    return pipe


@pytest.fixture(scope="module")
def runs(pipe: Any) -> Runs:
    return record_runs(Flux.of(pipe), 6, seed=0, batch=4)


@pytest.fixture
def scenes() -> Iterator[np.ndarray[Any, np.dtype[np.float32]]]:
    """Images (H, W, 3) in [0, 1] of every kind of object."""
    return iter((Scenes.sample(150, torch.Generator().manual_seed(0)).render() / 2 + 0.5).permute(0, 2, 3, 1).numpy())


def test_a_painted_style_is_read_from_pixels_and_no_other(scenes: Any) -> None:
    for image in scenes:
        plain = (image * 255).round().astype(np.uint8)
        assert not any(style.is_in(plain) for style in STYLES.values())
        for name, style in STYLES.items():
            painted = (style.paint(image) * 255).round().astype(np.uint8)
            assert [other for other, style in STYLES.items() if style.is_in(painted)] == [name]
            before, after = read(np.stack([plain, painted]))
            assert (after.color, after.shape, after.background) == (before.color, before.shape, before.background)


@pytest.mark.parametrize("style", STYLES.values())
def test_a_plain_background_stays_as_it_is(style: Any) -> None:
    image = np.full((64, 64, 3), 0.5, np.float32)
    assert np.array_equal(style.paint(image), image)
    assert not style.is_in((image * 255).astype(np.uint8))


@torch.no_grad()
def test_runs_are_those_of_the_pipeline(pipe: Any, runs: Runs) -> None:
    generator = torch.Generator().manual_seed(0)
    captions = [str(caption) for caption in Scenes.sample(6, generator).captions(generator)]
    made = pipe(
        captions, latents=runs.x[:, 0], num_inference_steps=STEPS, guidance_scale=0.0, height=64, width=64,
        output_type="latent", **ENTRY.call,
    ).images  # fmt: skip
    assert torch.allclose(runs.clean[:, -1], made, atol=1e-4)


def test_without_a_style_there_is_nothing_to_learn(pipe: Any, runs: Runs) -> None:
    same, other = (lora_loss(Flux.of(pipe), runs, last, 16) for last in (runs.clean[:, -1], runs.clean[:, -1] + 1))
    assert float(same(torch.Generator().manual_seed(1))) < 1e-8
    assert float(other(torch.Generator().manual_seed(1))) == pytest.approx(12 / 16, rel=1e-3)  # the last step's rows


def test_a_style_becomes_a_file_and_leaves_the_model_as_it_was(pipe: Any, runs: Runs, tmp_path: Path) -> None:
    names = [name for name, _ in pipe.transformer.named_modules()]
    brief = dataclasses.replace(SCHEDULE, steps=2)
    train_lora("underlined", pipe, runs, tmp_path / "work", tmp_path, seed=0, schedule=brief)
    assert [name for name, _ in pipe.transformer.named_modules()] == names
    with (tmp_path / "underlined.safetensors").open("rb") as file:
        facts = check_lora(file, find_structure(ENTRY))
    assert (facts.rank, facts.parts) == (RANK, ("transformer",))
    assert facts.layers > 30
    assert "context" not in LAYERS
    assert (tmp_path / "work" / "underlined.pt").stat().st_size > 0
