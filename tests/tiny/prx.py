"""PRX."""

from __future__ import annotations

import warnings
from typing import Any

import torch
from diffusers import FlowMatchEulerDiscreteScheduler, PRXPipeline, PRXTransformer2DModel
from torch import nn
from transformers import T5GemmaConfig, T5GemmaModuleConfig
from transformers.models.t5gemma.modeling_t5gemma import T5GemmaEncoder

from tests.tiny.common import WIDTH, Case, vae
from tests.tiny.gemma import gemma_tokenizer
from tests.tiny.video import spare_ftfy

spare_ftfy(PRXPipeline)


def _parts(seed: int) -> dict[str, Any]:
    torch.manual_seed(seed)
    tokenizer = gemma_tokenizer()
    tokenizer.model_max_length = 15
    transformer = PRXTransformer2DModel(
        in_channels=4, context_in_dim=WIDTH, hidden_size=32, num_heads=2, depth=2, axes_dim=[8, 8]
    )
    for block in transformer.blocks:
        nn.init.normal_(block.modulation.lin.weight, std=0.3)  # zero as made
        block.attention.txt_kv_proj.weight.data.mul_(3)
        block.attention.to_out[0].weight.data.mul_(3)
    sizes = T5GemmaModuleConfig(
        vocab_size=len(tokenizer),
        hidden_size=WIDTH,
        intermediate_size=2 * WIDTH,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=1,
        head_dim=WIDTH // 2,
        query_pre_attn_scalar=WIDTH // 2,
    )
    encoder = T5GemmaEncoder(T5GemmaConfig(encoder=sizes, decoder=sizes).encoder)
    nn.init.normal_(encoder.embed_tokens.weight, std=1.0)
    return {
        "transformer": transformer.eval(),
        "scheduler": FlowMatchEulerDiscreteScheduler(),
        "text_encoder": encoder.eval(),
        "tokenizer": tokenizer,
    }


def prx(seed: int = 0) -> PRXPipeline:
    parts = _parts(seed)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # one of its own parents is deprecated
        return PRXPipeline(**parts, vae=vae())


_OPTIONS = {"guidance_scale": 1.0, "height": 16, "width": 16, "use_resolution_binning": False}
_TEXT = ("encoder_hidden_states", "attention_mask")

CASES = (
    # Under CFG the pipeline gives as many timesteps as one prompt needs; a test of its own covers that.
    Case("prx", prx, options=_OPTIONS, text=_TEXT, attention="beside"),
)
