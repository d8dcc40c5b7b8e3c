"""The embedded models: real folders of the promised size, that do what their cards say."""

from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import FluxPipeline

import nag
from app.catalog import Catalog
from app.settings import Settings
from training.shapes.judge import read
from training.shapes.world import COLORS, SHAPES, Caption

SIZE_MAX_BYTES = 24_000_000
SEEDS = 48


@pytest.fixture(scope="module")
def entry():
    return Catalog.load(Settings()).models["shapes-flux"]


@pytest.fixture(scope="module")
def pipe(entry):
    pipe = FluxPipeline.from_pretrained(entry.repository)
    pipe.set_progress_bar_config(disable=True)
    return pipe


def readings(pipe, entry, prompts):
    generators = [torch.Generator().manual_seed(seed) for seed in range(len(prompts))]
    steps = entry.num_inference_steps.default
    images = pipe(
        prompts,
        num_inference_steps=steps,
        guidance_scale=0.0,
        height=entry.height.default,
        width=entry.width.default,
        generator=generators,
        output_type="np",
        **entry.call,
    ).images
    return list(read((images * 255).round().astype(np.uint8)))


def test_it_stays_small(entry):
    assert sum(path.stat().st_size for path in Path(entry.repository).rglob("*")) <= SIZE_MAX_BYTES


def test_the_catalogs_guidance_is_the_librarys_default(entry, pipe):
    assert entry.nag is not None
    assert nag.NAGParams(**entry.nag.model_dump()) == nag.defaults_for(pipe)


def test_it_draws_what_the_caption_names(pipe, entry):
    captions = [Caption(color=COLORS[i % 6], shape=SHAPES[i // 6 % 3]) for i in range(SEEDS)]
    seen = readings(pipe, entry, [str(caption) for caption in captions])
    assert sum(r.shows(c) for r, c in zip(seen, captions, strict=True)) >= 0.8 * SEEDS


def test_a_negative_prompt_is_obeyed(pipe, entry):
    plain = readings(pipe, entry, ["a shape"] * SEEDS)
    with nag.guide(pipe, "a red shape"):
        guided = readings(pipe, entry, ["a shape"] * SEEDS)
    assert sum(r.color == "red" for r in plain) >= 3
    assert sum(r.color == "red" for r in guided) <= 1
    assert {r.color for r in guided} >= {"green", "blue"}
