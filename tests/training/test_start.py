"""A training that starts from the weights of a pipeline folder."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from training import vae as autoencoder
from training.models.flux import LATENT_CHANNELS, Flux
from training.shapes.edits import INSTRUCTION_WORDS
from training.shapes.world import WORDS
from training.start import load_parts

pytestmark = pytest.mark.slow  # trains


@torch.no_grad()
def test_a_model_with_more_words_starts_as_the_folder_ends(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    monkeypatch.setattr("training.models.flux.INSTRUCTION_WORDS", WORDS)
    old, old_vae = Flux(), autoencoder.build_image(LATENT_CHANNELS)
    old_vae.register_to_config(scaling_factor=1.5, shift_factor=0.25)
    old.pipeline(old_vae).save_pretrained(tmp_path)
    monkeypatch.setattr("training.models.flux.INSTRUCTION_WORDS", INSTRUCTION_WORDS)
    new, new_vae = Flux(), autoencoder.build_image(LATENT_CHANNELS)
    load_parts(new.pipeline(new_vae), tmp_path)
    captions = ["a small red circle on a white background", "a shape"]
    for ours, theirs in zip(new.encode(captions), old.encode(captions), strict=True):
        assert torch.equal(ours, theirs)
    assert not torch.equal(new.encode(["make it blue"])[0], old.encode(["make it blue"])[0])
    for ours, theirs in ((new.denoiser, old.denoiser), (new_vae, old_vae)):
        assert all(torch.equal(a, b) for a, b in zip(ours.parameters(), theirs.parameters(), strict=True))
    assert (new_vae.config.scaling_factor, new_vae.config.shift_factor) == (1.5, 0.25)
