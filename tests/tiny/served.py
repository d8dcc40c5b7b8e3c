"""Small random pipelines as the service finds them: folders, and a catalog file beside them."""

from __future__ import annotations

from pathlib import Path

from tests.catalogs import CATALOG, MODEL, write
from tests.tiny.flux2 import klein
from tests.tiny.wan import wan, wan_5b

#: Models that start from references, from a first frame, and from a video.
OF_FILES = """
[models.told]
description = "FLUX.2 [klein] with random weights"
repository = "tiny-klein"
family = "flux2"
kind = "image"
dtype = "float32"
num_inference_steps = { default = 2, min = 1, max = 50 }
guidance_scale = { default = 1.0, min = 1.0, max = 1.0 }
width = { default = 64, min = 64, max = 64, multiple = 16 }
height = { default = 64, min = 64, max = 64, multiple = 16 }
prompt_max_chars = 2000
call = { max_sequence_length = 20, text_encoder_out_layers = [1, 2] }
nag = { scale = 5.0, tau = 2.5, alpha = 0.25, end = 1.0 }
inputs = { references = { max = 4 } }
[models.film]
extends = "tiny-wan"
repository = "tiny-wan-5b"
inputs = { first_frame = { required = true } }
[models.changing]
extends = "tiny-wan"
inputs = { video = {} }
"""


def wan_catalog(folder: Path) -> Path:
    """Writes a video pipeline and its catalog into the folder; returns the catalog's path."""
    wan().save_pretrained(folder / MODEL)
    return write(folder)


def files_catalog(folder: Path) -> Path:
    """As `wan_catalog`, with models that start from files."""
    for name, make in (("tiny-klein", klein), (MODEL, wan), ("tiny-wan-5b", wan_5b)):
        make().save_pretrained(folder / name)
    file = folder / "models.toml"
    file.write_text(CATALOG + OF_FILES)
    return file
