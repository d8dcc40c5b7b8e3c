"""LoRA files as low-rank factors of a model's layers, read by diffusers' own converters and loaded into no model."""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from diffusers.utils import (
    convert_state_dict_to_diffusers,
    convert_state_dict_to_peft,
    convert_unet_state_dict_to_peft,
    get_peft_kwargs,
)
from peft.tuners.tuners_utils import BaseTunerLayer
from peft.utils.other import get_pattern_key
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from app.catalog import Model
from app.loading.errors import LoraError

__all__ = ["Adapter", "Factors", "load_adapter"]

#: What a file's keys say of a kind of adapter that is not a sum of low-rank products, and what it is called.
REFUSED = {
    "dora_scale": "DoRA", "lora_magnitude_vector": "DoRA", "hada_w": "LoHa", "lokr_w": "LoKr",
    "lora_controlnet": "Control-LoRA", "lora_B.bias": "a LoRA with biases",
}  # fmt: skip
#: Keys of the first factor, in every layout.
DOWN = ("lora_down.weight", "lora_A.weight", "lora_A.default.weight", "lora.down.weight", "_lora.down.weight")
SHOWN_MAX = 3  # keys or layers that an error names
WEIGHTS, UP = ".lora_A.weight", ".lora_B.weight"


@dataclass(frozen=True, eq=False)
class Factors:
    """The product `up · down` that is added to the weight of a layer.

    Attributes:
        down: (r, inputs), of a convolution (r, inputs, *kernel).
        up: (outputs, r), of a convolution (outputs, r / groups, 1, …); the file's alpha / r is multiplied in.

    """

    down: Tensor
    up: Tensor

    @property
    def nbytes(self) -> int:
        return self.down.nbytes + self.up.nbytes

    def pin_memory(self) -> Factors:
        """Returns the same in main memory that a device can read from by itself."""
        return Factors(self.down.pin_memory(), self.up.pin_memory())

    def to(self, device: torch.device) -> Factors:
        """Returns the same on a device; the host does not wait for copies from pinned memory."""
        return Factors(self.down.to(device, non_blocking=True), self.up.to(device, non_blocking=True))


@dataclass(frozen=True, eq=False)
class Adapter:
    """A LoRA for one model: the factors of each layer by name, by the name of the pipeline's part."""

    parts: Mapping[str, Mapping[str, Factors]]

    @property
    def nbytes(self) -> int:
        return sum(factors.nbytes for layers in self.parts.values() for factors in layers.values())

    def map(self, change: Callable[[Factors], Factors]) -> Adapter:
        """Returns the adapter of changed factors."""
        return Adapter(
            {part: {name: change(factors) for name, factors in layers.items()} for part, layers in self.parts.items()}
        )


def load_adapter(entry: Model, pipe: Any, path: Path) -> Adapter:
    """Reads a safetensors file into main memory, as factors for the layers of a loaded pipeline.

    Raises:
        LoraError: it is no such file, is of another model, or needs what cannot be mixed within a batch.

    """
    if not hasattr(pipe, "lora_state_dict"):
        raise LoraError(entry.id, f"{type(pipe).__name__} takes none")
    try:
        with safe_open(path, framework="pt") as file:
            keys = list(file.keys())
        for mark, kind in REFUSED.items():
            if any(mark in key for key in keys):
                raise LoraError(entry.id, f"{kind} is not supported, only plain LoRA")
        weights, alphas, metadata = _convert_weights(pipe, path)
        parts = {
            name: dict(_factors(entry, name, module, weights, alphas, metadata))
            for name, module in pipe.components.items()
            if isinstance(module, nn.Module) and any(key.startswith(f"{name}.") for key in weights)
        }
    except (OSError, ValueError, TypeError, RuntimeError, KeyError, IndexError, AttributeError, SafetensorError) as exc:
        raise LoraError(entry.id, f"the file cannot be read as one ({type(exc).__name__})") from exc
    count, known = sum(map(len, parts.values())), sum(key.endswith(DOWN) for key in keys)
    if not count or count < known:
        raise LoraError(entry.id, f"{count} of the file's {known} layers belong to {type(pipe).__name__}")
    return Adapter(parts)


def _convert_weights(pipe: Any, path: Path) -> tuple[dict[str, Tensor], dict[str, Any], dict[str, Any] | None]:
    """Returns the file's weights by diffusers' names, the alphas that are not multiplied in yet, and peft's
    configuration.
    """
    convert = type(pipe).lora_state_dict
    options: dict[str, Any] = {"return_lora_metadata": True}
    if "return_alphas" in inspect.signature(convert).parameters:
        options["return_alphas"] = True
    if (unet := getattr(pipe, "unet", None)) is not None:
        options["unet_config"] = unet.config
    weights, *alphas, metadata = convert(
        path.parent, weight_name=path.name, use_safetensors=True, local_files_only=True, **options
    )
    return weights, (alphas[0] if alphas else None) or {}, metadata


def _factors(
    entry: Model, part: str, module: nn.Module, weights: Mapping[str, Tensor], alphas: Mapping[str, Any],
    metadata: Mapping[str, Any] | None,
) -> Iterator[tuple[str, Factors]]:  # fmt: skip
    """Yields the factors of the layers of one part, by the names of the layers in it."""
    of_part = _without_prefix(weights, part)
    is_text, is_of_peft = part.startswith("text_encoder"), any(WEIGHTS in key for key in of_part)
    if is_text and not is_of_peft:
        of_part = convert_state_dict_to_peft(convert_state_dict_to_diffusers(of_part))
    elif not is_of_peft:
        of_part = convert_unet_state_dict_to_peft(of_part)
    if not hasattr(module, "text_model"):  # which recent versions of transformers have left out
        of_part = {key.removeprefix("text_model."): value for key, value in of_part.items()}
    names = [key.removesuffix(WEIGHTS) for key in of_part if key.endswith(WEIGHTS)]
    odd = of_part.keys() - {name + end for name in names for end in (WEIGHTS, UP)}
    if odd or any(name + UP not in of_part for name in names):
        shown = ", ".join(sorted(odd or names)[:SHOWN_MAX])
        raise LoraError(entry.id, f"{part}: not pairs of low-rank weights: {shown}")
    config = _without_prefix(metadata or {}, part)
    if not config:
        ranks = {f"^{name}{UP}": of_part[name + UP].shape[1] for name in names}
        config = get_peft_kwargs(ranks, _without_prefix(alphas, part), of_part, is_unet=not is_text)
    # Not that of weights which are cast while their layer runs.
    dtypes = (parameter.dtype for parameter in module.parameters())
    dtype = next(dtype for dtype in dtypes if dtype.is_floating_point and dtype.itemsize > 1)
    for name in names:
        down, up = of_part[name + WEIGHTS], of_part[name + UP]
        _check_shapes(entry, part, name, module, down, up)
        pattern = get_pattern_key(config.get("alpha_pattern", {}).keys(), name)
        alpha = float(config.get("alpha_pattern", {}).get(pattern, config["lora_alpha"]))
        rank = math.sqrt(len(down)) if config.get("use_rslora") else len(down)
        yield name, Factors(down.to(dtype).contiguous(), (up.float() * (alpha / rank)).to(dtype).contiguous())


def _without_prefix(values: Mapping[str, Any], part: str) -> dict[str, Any]:
    return {key.removeprefix(f"{part}."): value for key, value in values.items() if key.startswith(f"{part}.")}


def _check_shapes(entry: Model, part: str, name: str, module: nn.Module, down: Tensor, up: Tensor) -> None:
    """Raises LoraError unless the model has the layer, and the factors' product the shape of its weight."""
    where = f"{part}.{name}"
    try:
        layer = module.get_submodule(name)
    except AttributeError:
        raise LoraError(entry.id, f"{where}: the model has no such layer") from None
    if isinstance(layer, BaseTunerLayer):  # of the catalog's own LoRAs
        layer = layer.get_base_layer()
    kernel: tuple[int, ...] = ()
    if isinstance(layer, nn.Linear):
        inputs, outputs, groups = layer.in_features, layer.out_features, 1
    elif isinstance(layer, nn.Conv1d | nn.Conv2d | nn.Conv3d) and layer.padding_mode == "zeros":
        inputs, outputs, groups, kernel = layer.in_channels, layer.out_channels, layer.groups, layer.kernel_size
    else:
        raise LoraError(
            entry.id, f"{where}: a {type(layer).__name__} takes no LoRA, only linear layers and convolutions"
        )
    needed = (len(down), inputs, *kernel), (outputs, len(down) // groups, *(1 for _ in kernel))
    if (tuple(down.shape), tuple(up.shape)) != needed:
        got = f"{tuple(down.shape)} and {tuple(up.shape)}"
        raise LoraError(entry.id, f"{where}: its factors must be {needed[0]} and {needed[1]}, got {got}")
