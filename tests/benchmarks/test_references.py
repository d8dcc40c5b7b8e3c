"""The scores of edits and continuations, on images that are drawn and not generated."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from diffusers import FluxKontextPipeline

from benchmarks import references
from benchmarks.references import draw_continuations, draw_edits, make_edits, score_continuations, score_edits
from training import vae as autoencoder
from training.models.flux import LATENT_CHANNELS, Flux
from training.shapes.clips import Continuations
from training.shapes.edits import Edits, Instruction
from training.shapes.judge import read
from training.shapes.track import read_clips

pytestmark = pytest.mark.slow  # runs benchmarks

COUNT = 40


def drawn(world: Any) -> Any:
    return world.sample(COUNT, torch.Generator().manual_seed(references.WORLD_SEED))


def to_bytes(pixels: Any) -> Any:
    return ((pixels + 1) * 127.5).round().byte().movedim(1, -1).numpy()


def test_what_the_instruction_leads_to_scores_full_and_the_given_image_nothing() -> None:
    edits = draw_edits(COUNT, negatives=False)
    world = drawn(Edits)
    scores = score_edits(edits, list(read(to_bytes(world.render()))))
    assert scores == {"obeyed": 1.0, "kept": 1.0, "clean": 1.0, "absent": 1.0}
    unchanged = score_edits(edits, list(read(to_bytes(world.references()))))
    assert unchanged == {"obeyed": 0.0, "kept": 1.0, "clean": 1.0, "absent": 1.0}


def test_a_negative_names_another_color_than_the_image_has() -> None:
    edits = draw_edits(COUNT, negatives=True)
    assert all(edit.instruction == Instruction("color") for edit in edits)
    assert all(edit.negative.color not in (None, edit.before.color) for edit in edits)
    assert len({edit.negative.color for edit in edits}) > 3
    obeyed_by_chance = [
        edit.negative.color == reading.color
        for edit, reading in zip(edits, read(to_bytes(drawn(Edits).render())), strict=True)
    ]
    scores = score_edits(edits, list(read(to_bytes(drawn(Edits).render()))))
    assert scores["absent"] == pytest.approx(1 - np.mean(obeyed_by_chance))


def test_a_drawn_clip_scores_full_and_its_reverse_does_not() -> None:
    continuations = draw_continuations(COUNT)
    clips = to_bytes(drawn(Continuations).render())
    scores = score_continuations(continuations, list(clips), list(read_clips(clips)))
    assert scores == {"motion": 1.0, "clean": 1.0, "first frame": 0.0}
    backwards = clips[:, ::-1]
    reverse = score_continuations(continuations, list(backwards), list(read_clips(backwards)))
    moving = np.mean([continuation.caption.motion != "still" for continuation in continuations])
    assert reverse["motion"] == pytest.approx(1 - moving)
    assert reverse["first frame"] > 0


@torch.no_grad()
def test_a_negative_prompt_changes_an_edit() -> None:
    torch.manual_seed(0)
    bundle = Flux()
    for parameter in bundle.denoiser.parameters():
        if not parameter.any():
            torch.nn.init.normal_(parameter, std=0.05)
    vae = autoencoder.build_image(LATENT_CHANNELS)
    vae.register_to_config(shift_factor=0.0, scaling_factor=1.0)
    pipe = FluxKontextPipeline(**bundle.pipeline(vae).components)
    pipe.set_progress_bar_config(disable=True)
    edits = draw_edits(3, negatives=True)
    plain, guided = (np.concatenate(list(make_edits(pipe, edits, guidance, 2))) for guidance in (None, {"scale": 9.0}))
    assert plain.shape == (3, 64, 64, 3)
    assert (plain != guided).any(axis=(1, 2, 3)).all()
