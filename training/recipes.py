"""How each embedded model is made."""

from __future__ import annotations

from functools import partial

from training import vae
from training.loop import Schedule
from training.models.flux import LATENT_CHANNELS, TEXT_LENGTH, Flux
from training.models.unet import StableDiffusion
from training.models.wan import Wan
from training.path import flow, variance_preserving
from training.recipe import Recipe
from training.shapes.clips import FRAMES, Clips, Continuations
from training.shapes.edits import Edits
from training.shapes.world import COLORS, Scenes

_SIDE = {"height": 64, "width": 64}

RECIPES = {
    "shapes-flux": Recipe(
        worlds={Scenes: 0.4, Edits: 0.6},
        build_vae=partial(vae.build_image, LATENT_CHANNELS),
        build=Flux,
        path=flow(timesteps=1.0),
        teacher=Schedule(steps=10_000, learning_rate=1.5e-3, warmup_steps=200),
        student=Schedule(steps=1200, learning_rate=4e-4, warmup_steps=30, average_decay=0.99),
        vae_batch=32,
        batch=64,
        scenes=24_000,
        call={**_SIDE, "max_sequence_length": TEXT_LENGTH, "guidance_scale": 0.0},
        cfg="true_cfg_scale",
        adversarial=0.1,
        exports={"shapes-flux": "student"},
        tuning={
            "teacher": Schedule(steps=4000, learning_rate=5e-4, warmup_steps=50, muon_min=1024),
            "student": Schedule(steps=600, learning_rate=1e-4, warmup_steps=30, average_decay=0.99, muon_min=1024),
            "batch": 16,
            "scenes": 6_000,
            "substeps": 2,
        },
    ),
    "shapes-sd": Recipe(
        worlds={Scenes: 1.0},
        build_vae=vae.build_image,
        build=StableDiffusion,
        path=variance_preserving(),
        teacher=Schedule(steps=15_000, learning_rate=3e-3, warmup_steps=100),
        student=Schedule(steps=800, learning_rate=4e-4, warmup_steps=30, average_decay=0.99),
        vae_batch=32,
        batch=64,
        scenes=24_000,
        call=_SIDE,
        cfg="guidance_scale",
        guidance_scale=3.0,  # at 2 the teacher draws the wrong shape in 12 %, at 3 in 3 %
        exports={"shapes-sd": "teacher", "shapes-sd-turbo": "student"},
    ),
    "shapes-wan": Recipe(
        worlds={Clips: 0.5, Continuations: 0.5},
        build_vae=vae.build_video,
        build=Wan,
        path=flow(timesteps=1000.0),
        teacher=Schedule(steps=22_000, learning_rate=2e-3, warmup_steps=200),
        student=Schedule(steps=700, learning_rate=4e-4, warmup_steps=30, average_decay=0.99),
        vae_batch=4,
        batch=32,
        scenes=6_000,
        call={**_SIDE, "num_frames": FRAMES, "max_sequence_length": TEXT_LENGTH},
        cfg="guidance_scale",
        adversarial=0.1,
        exports={"shapes-wan": "student"},
        tuning={
            "teacher": Schedule(steps=3000, learning_rate=5e-4, warmup_steps=50, muon_min=1024),
            "student": Schedule(steps=600, learning_rate=1e-4, warmup_steps=30, average_decay=0.99, muon_min=1024),
            "batch": 16,
            "scenes": 2_000,
            "substeps": 2,
        },
        vae=Schedule(steps=1200, learning_rate=3e-3, warmup_steps=50, muon_min=16),
        low_noise=2.0,
        sample_colors=COLORS[:2],
    ),
}
