"""Starts a training from the weights of a pipeline folder."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from diffusers import DiffusionPipeline
from torch import nn

__all__ = ["load_parts"]

#: The text encoders of a pipeline, and their tokenizers.
ENCODERS = {"text_encoder": "tokenizer", "text_encoder_2": "tokenizer_2"}


@torch.no_grad()
def load_parts(pipe: DiffusionPipeline, folder: Path) -> None:
    """Copies the folder's weights into the pipeline's modules, and the scale of its latents.

    A tokenizer may have other tokens than the folder's: embeddings go by token, and new ones keep their first values.
    """
    source: Any = type(pipe).from_pretrained(folder)
    components: dict[str, Any] = source.components
    for name, module in pipe.components.items():
        if not isinstance(module, nn.Module):
            continue
        weights = components[name].state_dict()
        if name in ENCODERS:
            weights |= _embeddings(module, components[name], getattr(pipe, ENCODERS[name]), components[ENCODERS[name]])
        module.load_state_dict(weights)
    scale = {key: value for key, value in source.vae.config.items() if key.startswith(("latents_", "scal", "shift"))}
    pipe.vae.register_to_config(**scale)


def _embeddings(module: Any, source: Any, tokenizer: Any, source_tokenizer: Any) -> dict[str, torch.Tensor]:
    """Returns `module`'s embedding table, with the source's rows for the tokens it has, under each of its names."""
    known = source_tokenizer.get_vocab()
    own = module.get_input_embeddings().weight
    table = own.clone()
    for token, row in tokenizer.get_vocab().items():
        if token in known:
            table[row] = source.get_input_embeddings().weight[known[token]]
    return {key: table for key, value in module.state_dict(keep_vars=True).items() if value is own}
