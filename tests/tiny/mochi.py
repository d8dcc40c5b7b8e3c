"""Mochi."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from diffusers import AutoencoderKLMochi, FlowMatchEulerDiscreteScheduler, MochiPipeline, MochiTransformer3DModel
from torch import Tensor, nn

from tests.tiny.common import WIDTH, Case, far_apart, strengthen
from training import text
from training.shapes.world import WORDS


def mochi(seed: int = 0) -> MochiPipeline:
    torch.manual_seed(seed)
    tokenizer = text.t5_tokenizer(WORDS)
    transformer = MochiTransformer3DModel(
        num_attention_heads=2,
        attention_head_dim=16,
        num_layers=3,
        pooled_projection_dim=24,
        text_embed_dim=WIDTH,
        time_embed_dim=16,
    )
    strengthen(transformer, 3.0)
    transformer.rope._create_rope = _rotations
    nn.init.normal_(transformer.pos_frequencies)
    t5 = far_apart(text.t5_encoder(tokenizer, WIDTH))
    return MochiPipeline(
        # The pipeline's own schedule stays above half of the noise for as few steps as these, so it is shifted.
        scheduler=FlowMatchEulerDiscreteScheduler(invert_sigmas=True, shift=0.2),
        vae=AutoencoderKLMochi(
            encoder_block_out_channels=(32,) * 4, decoder_block_out_channels=(32,) * 4, layers_per_block=(1,) * 5
        ).eval(),
        text_encoder=t5,
        tokenizer=tokenizer,
        transformer=transformer.eval(),
    )


def _rotations(frequencies: Tensor, places: Tensor) -> tuple[Tensor, Tensor]:
    """As the model's own, whose autocast warns on a CPU."""
    angles = torch.einsum("nd,dhf->nhf", places, frequencies)
    return angles.cos(), angles.sin()


class InOneCall:
    """Mochi's attention over all rows at once, where its own processor makes a call for each."""

    def __call__(
        self, attn: Any, image: Tensor, encoder_hidden_states: Tensor, attention_mask: Tensor, image_rotary_emb: Any
    ) -> tuple[Tensor, Tensor]:
        def heads(states: Tensor, norm: nn.Module | None = None) -> Tensor:
            states = states.unflatten(2, (attn.heads, -1))
            return states if norm is None else norm(states)

        def rotate(states: Tensor) -> Tensor:
            pairs = torch.view_as_complex(states.unflatten(-1, (-1, 2)).contiguous())
            return torch.view_as_real(pairs * torch.complex(*image_rotary_emb)).flatten(-2)

        words = encoder_hidden_states
        query = [rotate(heads(attn.to_q(image), attn.norm_q)), heads(attn.add_q_proj(words), attn.norm_added_q)]
        key = [rotate(heads(attn.to_k(image), attn.norm_k)), heads(attn.add_k_proj(words), attn.norm_added_k)]
        value = [heads(attn.to_v(image)), heads(attn.add_v_proj(words))]
        q, k, v = (torch.cat(each, dim=1).transpose(1, 2) for each in (query, key, value))
        seen = F.pad(attention_mask.bool(), (image.shape[1], 0), value=True)[:, None, None]
        out = F.scaled_dot_product_attention(q, k, v, attn_mask=seen).transpose(1, 2).flatten(2)
        of_image, of_words = out[:, : image.shape[1]], out[:, image.shape[1] :]
        return attn.to_out[0](of_image), of_words if attn.context_pre_only else attn.to_add_out(of_words)


CASES = (
    Case(
        "mochi",
        mochi,
        options={"guidance_scale": 1.0, "height": 32, "width": 48, "num_frames": 7, "max_sequence_length": 15},
        cfg={"guidance_scale": 4.0},
        text=("encoder_hidden_states", "encoder_attention_mask"),
        modulation="time_embed.pooler",
        attention="text_last",
        in_one_call=InOneCall,
        output="frames",
        timestep=lambda told: 1000 - told,
        fewest_steps=2,
    ),
)
