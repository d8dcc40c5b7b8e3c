"""What a bundle tells its denoiser, against the pipelines of diffusers."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from diffusers import FluxKontextPipeline, FluxPipeline, WanImageToVideoPipeline, WanPipeline
from torch import nn

from training import vae as autoencoder
from training.models.flux import LATENT_CHANNELS, TEXT_LENGTH, Flux
from training.models.wan import Wan
from training.path import Path, flow
from training.shapes.clips import FRAMES, Continuations
from training.shapes.edits import Edits

pytestmark = pytest.mark.slow  # trains

STEPS = 2
SIDE = {"height": 64, "width": 64, "max_sequence_length": TEXT_LENGTH, "num_inference_steps": STEPS}


def randomize(denoiser: Any) -> None:
    """Gives weights that start at zero other values, so that every input has an effect."""
    for parameter in denoiser.parameters():
        if not parameter.any():
            nn.init.normal_(parameter, std=0.05)


def sample(bundle: Any, path: Path, noise: torch.Tensor, text: Any, reference: torch.Tensor | None) -> torch.Tensor:
    """Runs `STEPS` even steps of the path."""
    x = noise
    for i in range(STEPS):
        at, below = (path.at(torch.full((len(x),), 1 - step / STEPS)) for step in (i, i + 1))
        x = at.step(x, bundle.predict(x, at.timestep, text, reference), below)
    return x


@pytest.fixture(scope="module")
def flux() -> tuple[Any, Any]:
    torch.manual_seed(0)
    bundle, vae = Flux(), autoencoder.build_image(LATENT_CHANNELS)
    randomize(bundle.denoiser)
    bundle.modules.eval()
    return bundle, vae


@pytest.fixture(scope="module")
def wan() -> tuple[Any, Any]:
    torch.manual_seed(0)
    bundle, vae = Wan(), autoencoder.build_video()
    randomize(bundle.denoiser)
    bundle.modules.eval()
    return bundle, vae


@torch.no_grad()
def test_an_edit_is_denoised_as_by_the_kontext_pipeline(flux: tuple[Any, Any]) -> None:
    bundle, vae = flux
    generator = torch.Generator().manual_seed(0)
    edits = Edits.sample(2, generator)
    captions = [str(caption) for caption in edits.captions(generator)]
    noise = torch.randn(2, LATENT_CHANNELS, 16, 16, generator=generator)
    data = autoencoder.encode_world(vae, Edits, 2, seed=0, device=torch.device("cpu"), batch=2)
    assert data.references is not None
    references = data.scenes.references()
    assert references is not None
    assert torch.equal(references, edits.references())
    autoencoder.register_scale(vae, data.latents)
    packed, reference = bundle.prepare(noise, autoencoder.normalized(vae, data.references))
    ours = sample(bundle, flow(timesteps=1.0), packed, bundle.encode(captions), reference)
    pipe = FluxKontextPipeline(**bundle.pipeline(vae).components)
    theirs = pipe(
        image=(edits.references() + 1) / 2,
        prompt=captions,
        latents=packed,
        guidance_scale=0.0,
        output_type="latent",
        max_area=64 * 64,
        _auto_resize=False,
        **SIDE,
    ).images
    assert torch.allclose(ours, theirs, atol=1e-4)
    alone = FluxPipeline(**bundle.pipeline(vae).components)(
        captions, latents=packed, guidance_scale=0.0, output_type="latent", **SIDE
    ).images
    assert torch.allclose(sample(bundle, flow(timesteps=1.0), packed, bundle.encode(captions), None), alone, atol=1e-4)
    assert not torch.allclose(alone, theirs, atol=1e-2)


@torch.no_grad()
def test_a_clip_is_continued_as_by_the_image_to_video_pipeline(wan: tuple[Any, Any]) -> None:
    bundle, vae = wan
    generator = torch.Generator().manual_seed(0)
    clips = Continuations.sample(1, generator)
    captions = [str(caption) for caption in clips.captions(generator)]
    noise = torch.randn(1, 24, 5, 8, 8, generator=generator)
    data = autoencoder.encode_world(vae, Continuations, 1, seed=0, device=torch.device("cpu"), batch=1)
    autoencoder.register_scale(vae, data.latents)
    assert data.references is not None
    first = autoencoder.normalized(vae, data.references)
    assert torch.allclose(first, autoencoder.normalized(vae, data.latents)[:, :, :1], atol=1e-4)
    later, reference = bundle.prepare(noise, first)
    text = bundle.encode(captions)
    calls: list[Any] = []
    bundle.denoiser.register_forward_hook(lambda _, args, kwargs, out: calls.append((kwargs, out[0])), with_kwargs=True)
    pipeline = bundle.pipeline(vae)
    call = {"num_frames": FRAMES, "guidance_scale": 1.0, "output_type": "latent", "latents": noise, **SIDE}
    made = WanImageToVideoPipeline(**pipeline.components, expand_timesteps=True)(
        image=(clips.references() + 1) / 2, prompt=captions, **call
    ).frames
    assert torch.allclose(made[:, :, :1], first, atol=1e-5)
    assert torch.equal(calls[0][0]["hidden_states"][:, :, 1:], later)
    WanPipeline(**pipeline.components, expand_timesteps=True)(captions, **call)
    told = calls[: 2 * STEPS]
    assert len(told) == 2 * STEPS
    for given, (kwargs, out) in zip([1] * STEPS + [0] * STEPS, told, strict=True):
        x = kwargs["hidden_states"]
        reference = x[:, :, :given] if given else None
        ours = bundle.predict(x[:, :, given:], kwargs["timestep"].amax(1), text, reference)
        assert torch.allclose(ours, out[:, :, given:], atol=1e-5)
        if given:
            assert torch.allclose(x[:, :, :given], first, atol=1e-5)
            whole = bundle.predict(x, kwargs["timestep"].amax(1), text)
            assert not torch.allclose(whole[:, :, given:], ours, atol=1e-3)


@pytest.mark.parametrize(("name", "world"), [("flux", Edits), ("wan", Continuations)])
def test_a_critic_sees_rows_with_and_without_a_reference_in_one_shape(
    name: str, world: Any, request: pytest.FixtureRequest
) -> None:
    bundle, vae = request.getfixturevalue(name)
    data = autoencoder.encode_world(vae, world, 2, seed=0, device=torch.device("cpu"), batch=2)
    alone, _ = bundle.prepare(data.latents, None)
    given, reference = bundle.prepare(data.latents, data.references)
    grids = [bundle.grid(alone, None), bundle.grid(given, reference)]
    assert grids[0].shape == grids[1].shape == (2, grids[0].shape[1], 8, 8)
    changed = bundle.grid(given, reference + 1)
    assert not torch.equal(changed, grids[1])
    assert not torch.equal(bundle.grid(given + 1, reference), grids[1])
