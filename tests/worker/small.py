"""Every catalog entry's repository as a folder: the tests' small random pipelines, saved in the real layout.

Beside it stand the files an entry adds to its repository: a LoRA, or another denoiser's weights.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from diffusers import LTXConditionPipeline
from peft import LoraConfig, get_peft_model_state_dict
from safetensors.torch import save_file

from app.catalog import Model
from app.worker.loading import denoisers
from tests import tiny
from tests.tiny.ltx import _parts as ltx_parts

MAKERS = {case.name: case.make for case in tiny.CASES}


@dataclass(frozen=True)
class Small:
    """make: the pipeline from a seed. call: what a small model needs said that a real one has right.
    size: width, height and frames of a short run. loaded: what a folder does not keep of a small pipeline."""

    make: Callable[[int], Any]
    call: dict[str, Any] = field(default_factory=dict)
    size: tuple[int, int, int] = (16, 16, 1)
    loaded: Callable[[Any], None] = lambda pipe: None


def _qwen(pipe: Any) -> None:
    pipe.prompt_template_encode = "<|im_start|>user {}<|im_end|><|im_start|>assistant"
    pipe.prompt_template_encode_start_idx = 2


def _chroma(seed: int) -> Any:
    pipe = MAKERS["chroma"](seed)
    pipe.vae.register_to_config(shift_factor=0.0)
    return pipe


FLUX = Small(MAKERS["flux"], {"max_sequence_length": 15})
SD = Small(MAKERS["sd"])
SDXL = Small(MAKERS["sdxl"])
WAN = Small(MAKERS["wan"], {"max_sequence_length": 15}, (32, 32, 5))

SMALL = {
    "shapes-flux": FLUX,
    "shapes-sd": SD,
    "shapes-sd-turbo": SD,
    "shapes-wan": WAN,
    "flux-schnell": FLUX,
    "flux-dev": FLUX,
    "flux2-klein": Small(
        MAKERS["flux2-klein"], {"max_sequence_length": 20, "text_encoder_out_layers": (1, 2)}, (64, 48, 1)
    ),
    "sdxl": SDXL,
    "sdxl-dmd2": SDXL,
    "sdxl-lightning": SDXL,
    "sdxl-hyper": SDXL,
    "sd35-large-turbo": Small(MAKERS["sd3"], {"max_sequence_length": 15}),
    "sana-sprint": Small(
        MAKERS["sana-sprint"], {"max_sequence_length": 15, "complex_human_instruction": None}, (32, 32, 1)
    ),
    "pixart-sigma": Small(MAKERS["pixart"], {"max_sequence_length": 15}),
    "qwen-image-lightning": Small(MAKERS["qwen-image"], size=(24, 16, 1), loaded=_qwen),
    "z-image-turbo": Small(MAKERS["z-image"], {"max_sequence_length": 96}),
    "chroma-hd": Small(_chroma, {"max_sequence_length": 15}),
    "wan21-lightx2v": WAN,
    "wan22-lightning": Small(MAKERS["wan-two"], {"max_sequence_length": 15}, (32, 32, 5)),
    "ltx-video-distilled": Small(
        lambda seed: LTXConditionPipeline(**ltx_parts(seed)), {"max_sequence_length": 15}, (64, 64, 9)
    ),
    "hunyuan-video": Small(
        MAKERS["hunyuan-video"],
        {"max_sequence_length": 14, "prompt_template": {"template": "{}", "crop_start": 0}},
        (16, 16, 9),
    ),
}


def in_folder(entry: Model, folder: Path) -> Model:
    """The entry with everything it takes from the hub taken from `folder`, where it is made."""
    small = SMALL[entry.id]
    pipe = small.make(0)
    pipe.save_pretrained(folder / "repository", variant=entry.variant)
    for lora in entry.lora:
        save_lora(pipe, folder / "lora", lora.weight_name, second=lora.into is not None)
    changes: dict[str, Any] = {
        "repository": str(folder / "repository"),
        "lora": tuple(lora.model_copy(update={"repository": str(folder / "lora")}) for lora in entry.lora),
        "call": {**entry.call, **small.call},
        # Half precision of this kind is not for a CPU.
        "dtype": "float32" if entry.dtype == "float16" else entry.dtype,
    }
    if entry.denoiser is not None:
        (folder / "denoiser").mkdir(exist_ok=True)
        save_file(denoisers(small.make(1))[0].state_dict(), folder / "denoiser" / entry.denoiser.weight_name)
        changes["denoiser"] = entry.denoiser.model_copy(update={"repository": str(folder / "denoiser")})
    return entry.model_copy(update=changes)


def save_lora(pipe: Any, folder: Path, weight_name: str, *, second: bool = False) -> None:
    """A random LoRA of the pipeline's first or second denoiser, strong enough to be seen."""
    model = denoisers(pipe)[int(second)]
    torch.manual_seed(1 + second)
    model.add_adapter(LoraConfig(r=2, init_lora_weights=False, target_modules=["to_q", "to_k", "to_v"]), "made")
    kind = "unet" if hasattr(pipe, "unet") else "transformer"
    path = folder / weight_name
    pipe.save_lora_weights(
        path.parent,
        **{f"{kind}_lora_layers": get_peft_model_state_dict(model, adapter_name="made")},
        weight_name=path.name,
    )
    model.delete_adapters("made")
