"""shapes-flux: a 64-pixel Flux in stages: autoencoder, flow teacher, 4-step student."""

from __future__ import annotations

from copy import deepcopy
from pathlib import Path

import torch
from diffusers import AutoencoderKL, FlowMatchEulerDiscreteScheduler, FluxPipeline
from PIL import Image
from torch import nn

from training import vae as autoencoder
from training.flow import SHIFT, Data, sample, student_loss, teacher_loss
from training.flux import Flux, pack
from training.loop import Schedule, train
from training.shapes.world import COLORS, SHAPES, Caption

VAE = Schedule(steps=900, learning_rate=2e-3)
TEACHER = Schedule(steps=5000, learning_rate=1.5e-3, warmup_steps=200)
STUDENT = Schedule(steps=300, learning_rate=4e-4, warmup_steps=30, average_decay=0.99)
BATCH = 64
SCENES = 24_000
#: CFG scale of the teacher that the student learns from.
TEACHER_GUIDANCE = 2.0


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
    teacher.transformer.compile(dynamic=False)
    train("teacher", teacher.modules, teacher_loss(teacher, data, BATCH), TEACHER, work / "teacher.pt", seed + 1)
    save_samples(teacher, vae, work / "teacher.png", steps=16, guidance_scale=TEACHER_GUIDANCE)
    if last_stage == "teacher":
        return
    teacher.modules.requires_grad_(False)

    student = deepcopy(teacher)
    student.transformer.requires_grad_(True)
    student.transformer.compile(dynamic=False)
    loss = student_loss(student, teacher, data, BATCH, guidance_scale=TEACHER_GUIDANCE)
    train("student", nn.ModuleDict({"transformer": student.transformer}), loss, STUDENT, work / "student.pt", seed + 2)
    save_samples(student, vae, work / "student.png", steps=4)
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
        scheduler=FlowMatchEulerDiscreteScheduler(shift=SHIFT),
        vae=vae,
        text_encoder=flux.clip,
        tokenizer=flux.clip_tokenizer,
        text_encoder_2=flux.t5,
        tokenizer_2=flux.t5_tokenizer,
        transformer=flux.transformer,
    )


def save_samples(flux: Flux, vae: AutoencoderKL, path: Path, steps: int, guidance_scale: float = 1.0) -> None:
    """A picture of each colour as each shape, to look at."""
    captions = [Caption(color=color, shape=shape) for shape in SHAPES for color in COLORS]
    noise = torch.randn(len(captions), 64, 12, generator=torch.Generator().manual_seed(0)).to(vae.device)
    packed = sample(flux, captions, noise, steps, guidance_scale=guidance_scale)
    latents = FluxPipeline._unpack_latents(packed, 64, 64, 4) / vae.config.scaling_factor + vae.config.shift_factor
    with torch.no_grad():
        pictures = vae.decode(latents).sample.clamp(-1, 1)
    rows = ((pictures + 1) * 127.5).round().byte().permute(0, 2, 3, 1).unflatten(0, (len(SHAPES), len(COLORS)))
    Image.fromarray(rows.transpose(1, 2).flatten(2, 3).flatten(0, 1).cpu().numpy()).save(path)


def export(flux: Flux, vae: AutoencoderKL, out: Path) -> None:
    """The pipeline folder; the two large models are stored as float16 and load as float32."""
    flux.transformer.half()
    vae.half()
    pipeline(flux, vae).save_pretrained(out)
