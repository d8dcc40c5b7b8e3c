"""`python -m training.lora STYLE…`: trains LoRAs that change the style of shapes-flux, resuming where it stopped.

The model draws in few steps, so there is no noised data to learn from: its own last step decides how things look. For
a caption and noise it runs as it is, and its last image is painted over. With the LoRA, the last step must arrive at
the painted image and all others where they arrived before, so what is drawn stays the model's choice.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from diffusers import FluxPipeline
from peft import LoraConfig, get_peft_model_state_dict
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from tqdm import tqdm

from training import vae as autoencoder
from training.loop import Schedule, train
from training.models.flux import Flux
from training.path import Level
from training.recipes import RECIPES
from training.shapes.styles import STYLES, Style
from training.shapes.world import Scenes

__all__ = ["Runs", "lora_loss", "record_runs", "train_lora"]

MODEL, STEPS = "shapes-flux", 4
#: The layers that read and write the image's tokens. The text's are left alone, so that captions mean what they did.
LAYERS = r".*blocks\.\d+\.(attn\.(to_[qkv]|to_out\.0)|ff\.net\.(0\.proj|2)|proj_mlp|proj_out)"
RANK = 16
SCHEDULE = Schedule(steps=420, learning_rate=3e-3, warmup_steps=10, average_decay=0.95, weight_decay=0.0)
RUNS, BATCH = 640, 16
#: How much of the change that painting makes is learnt: guidance, and weights below 1, take some of it back.
STRENGTH = 1.3
#: Share of a batch that learns the last step; the others learn to leave the steps before it as they are.
LAST_SHARE = 0.75


@dataclass(frozen=True)
class Runs:
    """Runs of the model as it is, by rows: its text, and at each step what came in and the clean latents it predicted.

    text: as `Flux.encode` returns it. x, clean: (N, steps, tokens, channels).
    """

    text: tuple[torch.Tensor, ...]
    x: torch.Tensor
    clean: torch.Tensor


@torch.no_grad()
def record_runs(bundle: Flux, count: int, seed: int, batch: int = 64) -> Runs:
    """Runs the model from captions and noise that `seed` decides."""
    generator = torch.Generator().manual_seed(seed)
    captions = [str(caption) for caption in Scenes.sample(count, generator).captions(generator)]
    channels = bundle.denoiser.config.in_channels
    noise = torch.randn(count, 64, channels, generator=generator)
    texts, inputs, predictions = [], [], []
    for start in tqdm(range(0, count, batch), desc="runs", unit="batch"):
        text = bundle.encode(captions[start : start + batch])
        x = noise[start : start + batch]
        texts.append(text)
        for step in range(STEPS):
            level = _level(torch.full((len(x),), step))
            v = bundle.predict(x, level.timestep, text)
            inputs.append(x)
            predictions.append(level.clean(x, v))
            x = level.step(x, v, _level(torch.full((len(x),), step + 1)))
    x, clean = (
        torch.cat([torch.stack(values[i : i + STEPS], dim=1) for i in range(0, len(values), STEPS)])
        for values in (inputs, predictions)
    )
    return Runs(tuple(torch.cat(parts) for parts in zip(*texts, strict=True)), x, clean)


@torch.no_grad()
def paint_latents(vae: Any, latents: torch.Tensor, style: Style, batch: int = 64) -> torch.Tensor:
    """Returns latents (N, tokens, channels) of the same images, painted over.

    What painting changes is added, so that the autoencoder's own errors are no part of it.
    """
    rows = []
    for part in tqdm(torch.split(latents, batch), desc="painted", unit="batch"):
        unpacked = FluxPipeline._unpack_latents(part, 64, 64, vae_scale_factor=4)
        scaled = unpacked / vae.config.scaling_factor + (vae.config.shift_factor or 0.0)
        images = vae.decode(scaled).sample.clamp(-1, 1)
        pixels = ((images + 1) / 2).permute(0, 2, 3, 1).numpy()
        painted = torch.from_numpy(np.stack([style.paint(image) for image in pixels])).permute(0, 3, 1, 2) * 2 - 1
        before, after = (
            autoencoder.normalized(vae, vae.encode(images).latent_dist.mean) for images in (images, painted)
        )
        change = STRENGTH * (after - before)
        rows.append(part + FluxPipeline._pack_latents(change, *change.shape))
    return torch.cat(rows)


def lora_loss(bundle: Flux, runs: Runs, painted: torch.Tensor, batch: int) -> Callable[[torch.Generator], torch.Tensor]:
    """Returns the error of the clean latents that each step predicts, from what the model's own run came to."""
    wanted = torch.cat([runs.clean[:, :-1], painted[:, None]], dim=1)

    def value(generator: torch.Generator) -> torch.Tensor:
        drawn = torch.randint(len(wanted), (batch,), generator=generator)
        steps = torch.randint(STEPS - 1, (batch,), generator=generator)
        steps[: round(LAST_SHARE * batch)] = STEPS - 1
        level = _level(steps)
        x = runs.x[drawn, steps]
        v = bundle.predict(x, level.timestep, tuple(states[drawn] for states in runs.text))
        return F.mse_loss(level.clean(x, v), wanted[drawn, steps])

    return value


def train_lora(
    name: str, pipe: FluxPipeline, runs: Runs, work: Path, out: Path, seed: int, schedule: Schedule = SCHEDULE
) -> None:
    """Trains the style of this name and writes `out`/`name`.safetensors, in float16."""
    bundle = Flux.of(pipe)
    painted = paint_latents(pipe.vae, runs.clean[:, -1], STYLES[name])
    torch.manual_seed(seed)
    pipe.transformer.add_adapter(LoraConfig(r=RANK, lora_alpha=RANK, target_modules=LAYERS), adapter_name=name)
    layers = nn.ModuleDict({"denoiser": pipe.transformer})
    train(name, layers, lora_loss(bundle, runs, painted, BATCH), schedule, work / f"{name}.pt", seed)
    weights = get_peft_model_state_dict(pipe.transformer, adapter_name=name)
    pipe.save_lora_weights(
        out,
        transformer_lora_layers={key: value.half().contiguous() for key, value in weights.items()},
        weight_name=f"{name}.safetensors",
    )
    pipe.unload_lora_weights()


def _level(steps: torch.Tensor) -> Level:
    return RECIPES[MODEL].path.at(1 - steps / STEPS)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m training.lora", description=__doc__)
    parser.add_argument("style", nargs="+", choices=sorted(STYLES))
    parser.add_argument("--model", type=Path, default=Path("app/builtin") / MODEL, help="a pipeline folder")
    parser.add_argument("--work", type=Path, default=Path(".train/loras"), help="the model's runs, and checkpoints")
    parser.add_argument("--out", type=Path, default=Path("app/builtin/loras"))
    parser.add_argument("--steps", type=int, default=SCHEDULE.steps)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    pipe = FluxPipeline.from_pretrained(arguments.model)
    for part in (pipe.transformer, pipe.vae, pipe.text_encoder, pipe.text_encoder_2):
        part.requires_grad_(False)
    schedule = replace(SCHEDULE, steps=arguments.steps)
    cache = arguments.work / "runs.pt"
    with sdpa_kernel(SDPBackend.MATH):  # several times faster for short sequences of narrow heads on a CPU
        if cache.exists():
            runs = Runs(**torch.load(cache, weights_only=True))
        else:
            runs = record_runs(Flux.of(pipe), RUNS, arguments.seed)
            arguments.work.mkdir(parents=True, exist_ok=True)
            torch.save(vars(runs), cache)
        for name in arguments.style:
            train_lora(name, pipe, runs, arguments.work, arguments.out, arguments.seed, schedule)


if __name__ == "__main__":
    main()
