"""Small random LoRAs for the models of tests, as files in the layouts that users have; diffusers' own use of them."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from app.jobs import LoraUse
from app.loading.adapters import load_adapter
from app.worker.engine.shared_model import SharedModel

__all__ = ["add_loras", "layers_of", "use_peft", "write_lora"]


def layers_of(module: nn.Module, *words: str) -> list[str]:
    """Names of the linear layers and convolutions, all or those that a word is part of."""
    names = [name for name, layer in module.named_modules() if isinstance(layer, nn.Linear | nn.Conv2d | nn.Conv3d)]
    return [name for name in names if not words or any(word in name for word in words)]


def write_lora(
    path: Path, pipe: Any, layers: Mapping[str, Sequence[str]], *, rank: int = 4, seed: int = 0, strength: float = 0.3,
    alpha: float | None = None,
) -> Path:  # fmt: skip
    """Writes a LoRA of the layers, by the name of the pipeline's part, in peft's layout; with `alpha` in kohya's.

    Its product has about `strength` times the norm of each weight.
    """
    generator = torch.Generator().manual_seed(seed)
    weights: dict[str, torch.Tensor] = {}
    for part, names in layers.items():
        module = getattr(pipe, part)
        for name in names:
            weight = module.get_submodule(name).weight.detach().float()
            down, up = _factors(weight, rank, generator)
            up *= strength * weight.norm() / (up.flatten(1) @ down.flatten(1)).norm()
            if alpha is None:
                weights |= {f"{part}.{name}.lora_A.weight": down, f"{part}.{name}.lora_B.weight": up}
            else:
                prefix = {"unet": "lora_unet", "text_encoder": "lora_te"}[part]
                key = f"{prefix}_{name.replace('.', '_')}"
                weights |= {f"{key}.lora_down.weight": down, f"{key}.lora_up.weight": up * rank / alpha}
                weights[f"{key}.alpha"] = torch.tensor(alpha)
    save_file({key: weight.contiguous() for key, weight in weights.items()}, path)
    return path


def add_loras(model: SharedModel, paths: Mapping[str, Path]) -> None:
    """Makes LoRA files usable by their ids."""
    for lora, path in paths.items():
        model.add_adapter(lora, load_adapter(model.entry, model.pipe, path))


def use_peft(pipe: Any, paths: Mapping[str, Path], loras: Sequence[LoraUse]) -> None:
    """Has diffusers itself load LoRAs into a pipeline, with their weights."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Already found a `peft_config`")  # of the LoRA before
        for use in loras:
            pipe.load_lora_weights(paths[use.id].parent, weight_name=paths[use.id].name, adapter_name=use.id)
    pipe.set_adapters([use.id for use in loras], [use.scale for use in loras])


def _factors(weight: Tensor, rank: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    kernel = weight.shape[2:]
    down = torch.randn(rank, *weight.shape[1:], generator=generator)
    return down, torch.randn(len(weight), rank, *(1 for _ in kernel), generator=generator)
