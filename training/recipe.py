"""A model's recipe and the one run that follows it: autoencoder, teacher, student, pipeline folders."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass, field, replace
from pathlib import Path as FilePath
from typing import Any, Literal

import numpy as np
import torch
from PIL import Image
from torch import nn

from training import vae as autoencoder
from training.critic import Critic
from training.loop import Schedule, train
from training.models.bundle import Bundle
from training.path import Path
from training.shapes.world import COLORS, SHAPES, Caption, World
from training.stages import Data, Mixture, student_loss, teacher_loss
from training.start import load_parts

STAGES = ("vae", "teacher", "student", "export")
#: An autoencoder learns as well without Muon, in less time a step.
VAE = Schedule(steps=900, learning_rate=2e-3, convolutions=False)


@dataclass(frozen=True)
class Recipe:
    """All that differs between the embedded models."""

    #: What it learns to show, by the share of batches; the autoencoder learns from the first.
    worlds: Mapping[type[World], float]
    build_vae: Callable[[], Any]
    build: Callable[[], Bundle]
    path: Path
    teacher: Schedule
    student: Schedule
    vae_batch: int
    batch: int
    #: Rows encoded of each world.
    scenes: int
    #: Arguments of the pipeline, and the one that asks for CFG.
    call: Mapping[str, Any]
    cfg: str
    #: Which stage's weights each pipeline folder holds.
    exports: Mapping[str, Literal["teacher", "student"]]
    #: What differs if the training starts from the weights of a pipeline folder.
    tuning: Mapping[str, Any] = field(default_factory=dict)
    vae: Schedule = VAE
    #: Above 1, the teacher learns more at low noise, where outlines are settled; at 2 a shifted flow's levels are even.
    low_noise: float = 1.0
    #: Weight of the critic's judgement in the student's loss; 0 does without a critic.
    adversarial: float = 0.0
    student_steps: int = 4
    #: Guided steps of the teacher to one of the student, and their CFG scale.
    substeps: int = 4
    guidance_scale: float = 2.0
    #: On the sheets of samples, beside every shape.
    sample_colors: Sequence[str] = COLORS


def run(
    recipe: Recipe,
    work: FilePath,
    out: FilePath,
    last_stage: str,
    seed: int,
    device: torch.device,
    start: FilePath | None = None,
    *,
    compiled: bool = True,
) -> None:
    """Runs every stage up to `last_stage`; a stage with a finished checkpoint in `work` is only loaded. `out` receives
    the pipeline folders. With `start`, a pipeline folder, the autoencoder is the folder's, and the teacher starts from
    its denoiser and its text encoders."""
    torch.manual_seed(seed)
    vae, teacher = recipe.build_vae(), recipe.build()
    if start is not None:
        recipe = replace(recipe, **recipe.tuning)
        load_parts(teacher.pipeline(vae), start)
    vae.to(device)
    teacher.modules.to(device)
    if start is None:
        loss = autoencoder.loss(vae, next(iter(recipe.worlds)), recipe.vae_batch, device)
        train("vae", nn.ModuleDict({"vae": vae}), loss, recipe.vae, work / "vae.pt", seed)
    if last_stage == "vae":
        return
    vae.requires_grad_(False)
    data = encode_worlds(recipe, vae, teacher, work, seed, device, rescale=start is None)
    if compiled:
        teacher.denoiser.compile(dynamic=False)
    loss = teacher_loss(teacher, recipe.path, data, recipe.batch, low_noise=recipe.low_noise)
    train("teacher", teacher.modules, loss, recipe.teacher, work / "teacher.pt", seed + 1)
    steps = recipe.student_steps * recipe.substeps
    save_samples(recipe, teacher, vae, work / "teacher.png", steps, recipe.guidance_scale)
    if last_stage == "teacher":
        return
    teacher.modules.requires_grad_(False)

    student = deepcopy(teacher)
    student.denoiser.requires_grad_(True)
    if compiled:
        student.denoiser.compile(dynamic=False)
    trained = nn.ModuleDict({"denoiser": student.denoiser})
    critic = None
    if recipe.adversarial:
        critic = build_critic(student, data).to(device)
        trained["critic"] = critic
    loss = student_loss(
        student,
        teacher,
        recipe.path,
        data,
        recipe.batch,
        steps=recipe.student_steps,
        substeps=recipe.substeps,
        guidance_scale=recipe.guidance_scale,
        critic=critic,
        adversarial_weight=recipe.adversarial,
    )
    train("student", trained, loss, recipe.student, work / "student.pt", seed + 2)
    save_samples(recipe, student, vae, work / "student.png", recipe.student_steps)
    if last_stage == "student":
        return
    # The two large models are stored as float16 and load as float32.
    vae.half()
    for name, stage in recipe.exports.items():
        bundle = {"teacher": teacher, "student": student}[stage]
        bundle.denoiser.half()
        bundle.pipeline(vae).save_pretrained(out / name)


def encode_worlds(
    recipe: Recipe, vae: Any, bundle: Bundle, work: FilePath, seed: int, device: torch.device, *, rescale: bool
) -> Mixture:
    """Encodes and normalizes what the recipe learns from. With `rescale`, the first world decides the scale of the
    latents."""
    parts = list[Data]()
    encoded = dict[type[World], Data]()
    for world in recipe.worlds:
        # A subclass adds reference images to the rows of its base.
        known = next((data.latents for base, data in encoded.items() if issubclass(world, base)), None)
        data = autoencoder.encode_world(
            vae,
            world,
            recipe.scenes,
            seed,
            device,
            8 * recipe.vae_batch,
            known=known,
            cache=work / f"latents-{world.__name__}.pt",
        )
        encoded[world] = data
        if rescale and not parts:
            autoencoder.register_scale(vae, data.latents)
        latents, references = (
            None if tensor is None else autoencoder.normalized(vae, tensor)
            for tensor in (data.latents, data.references)
        )
        assert latents is not None
        parts.append(Data(*bundle.prepare(latents, references), data.scenes))
    return Mixture(parts, list(recipe.worlds.values()))


@torch.no_grad()
def build_critic(bundle: Bundle, data: Mixture) -> Critic:
    """Builds a critic of the right width for what the bundle shows it."""
    drawn = data.draw(1, torch.Generator().manual_seed(0))
    text = bundle.encode(drawn.captions)[0]
    return Critic(bundle.grid(drawn.clean, drawn.reference).shape[1], text.shape[-1])


def save_samples(
    recipe: Recipe, bundle: Bundle, vae: Any, path: FilePath, steps: int, guidance_scale: float = 1.0
) -> None:
    """Saves an image of each shape in each color, to look at; of a clip the middle frame."""
    captions = [str(Caption(color=color, shape=shape)) for shape in SHAPES for color in recipe.sample_colors]
    pipe: Any = bundle.pipeline(vae)
    with torch.compiler.set_stance("force_eager"):
        made = pipe(
            captions,
            num_inference_steps=steps,
            generator=torch.Generator().manual_seed(0),
            output_type="np",
            negative_prompt=[""] * len(captions) if guidance_scale > 1 else None,
            **{**recipe.call, recipe.cfg: guidance_scale},
        )[0]
    pictures = made[:, made.shape[1] // 2] if made.ndim == 5 else made
    rows = (pictures * 255).round().astype(np.uint8).reshape(len(SHAPES), -1, *pictures.shape[1:])
    Image.fromarray(np.concatenate(np.concatenate(rows.swapaxes(0, 1), axis=2), axis=0)).save(path)
