"""shapes-flux: a 64-pixel Flux in three stages: autoencoder, flow teacher, 4-step student."""

from __future__ import annotations

from copy import deepcopy
from pathlib import Path

import torch
from diffusers import AutoencoderKL, FlowMatchEulerDiscreteScheduler, FluxPipeline
from torch import nn

from training import vae as autoencoder
from training.flow import Data, student_loss, teacher_loss
from training.flux import Flux, pack
from training.loop import Schedule, train

VAE = Schedule(steps=900, learning_rate=2e-3)
TEACHER = Schedule(steps=3600, learning_rate=1.5e-3, warmup_steps=200)
STUDENT = Schedule(steps=800, learning_rate=4e-4, warmup_steps=50, average_decay=0.99)
BATCH = 64
SCENES = 24_000


def run(work: Path, out: Path, last_stage: str, seed: int, device: torch.device) -> None:
    """Every stage up to `last_stage`; a stage with a finished checkpoint in `work` is only loaded."""
    torch.manual_seed(seed)
    vae = autoencoder.build().to(device)
    train("vae", nn.ModuleDict({"vae": vae}), autoencoder.loss(vae, 32, device), VAE, work / "vae.pt", seed)
    if last_stage == "vae":
        return
    vae.requires_grad_(False)
    data = _scaled_data(vae, seed, device)

    teacher = Flux.build()
    teacher.modules.to(device)
    train("teacher", teacher.modules, teacher_loss(teacher, data, BATCH), TEACHER, work / "teacher.pt", seed + 1)
    if last_stage == "teacher":
        return
    teacher.modules.requires_grad_(False)

    student = deepcopy(teacher)
    student.transformer.requires_grad_(True)
    loss = student_loss(student, teacher, data, BATCH)
    train("student", nn.ModuleDict({"transformer": student.transformer}), loss, STUDENT, work / "student.pt", seed + 2)
    if last_stage == "student":
        return
    export(student, vae, out)


def _scaled_data(vae: AutoencoderKL, seed: int, device: torch.device) -> Data:
    """Latents of a bank of scenes, brought to mean 0 and deviation 1; the pipeline undoes it by the VAE's config."""
    latents, scenes = autoencoder.latent_bank(vae, SCENES, seed, device)
    mean, deviation = float(latents.mean()), float(latents.std())
    vae.register_to_config(shift_factor=mean, scaling_factor=1.0 / deviation)
    return Data(pack((latents - mean) / deviation), scenes)


def pipeline(flux: Flux, vae: AutoencoderKL) -> FluxPipeline:
    return FluxPipeline(
        scheduler=FlowMatchEulerDiscreteScheduler(shift=1.0),
        vae=vae,
        text_encoder=flux.clip,
        tokenizer=flux.clip_tokenizer,
        text_encoder_2=flux.t5,
        tokenizer_2=flux.t5_tokenizer,
        transformer=flux.transformer,
    )


def export(flux: Flux, vae: AutoencoderKL, out: Path) -> None:
    """The pipeline folder; the two large models are stored as float16 and load as float32."""
    flux.transformer.half()
    vae.half()
    pipeline(flux, vae).save_pretrained(out)
