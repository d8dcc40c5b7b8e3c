"""A catalog file whose default makes videos."""

from __future__ import annotations

from pathlib import Path

MODEL = "tiny-wan"

CATALOG = f"""
default = "{MODEL}"

[models.{MODEL}]
description = "Wan with random weights: nothing to see"
repository = "{MODEL}"
family = "wan"
kind = "video"
dtype = "float32"
num_inference_steps = {{ default = 2, min = 1, max = 50 }}
guidance_scale = {{ default = 1.0, min = 1.0, max = 20.0 }}
width = {{ default = 64, min = 32, max = 64, multiple = 16 }}
height = {{ default = 48, min = 32, max = 64, multiple = 16 }}
num_frames = {{ default = 9, min = 5, max = 81, multiple = 4, offset = 1 }}
fps = {{ default = 16, min = 1, max = 60 }}
prompt_max_chars = 2000
call = {{ max_sequence_length = 15 }}
nag = {{ scale = 5.0, tau = 2.5, alpha = 0.25, end = 1.0 }}
"""


def write(folder: Path) -> Path:
    """The file, in this folder; its model would lie beside it, and is missed by nobody but a worker."""
    file = folder / "models.toml"
    file.write_text(CATALOG)
    return file
