"""The authors' Flux layout as a plain function over the model's own layers: slow, explicit, nothing shared with `nag`.

Two text streams and, from the first single block on, two lanes of the image, each with the time embedding of its own
pooled prompt. The attention output of the image is guided by the formula in every block.
"""

from __future__ import annotations

from typing import Any

import torch
from diffusers.models.embeddings import apply_rotary_emb


def denoise(
    transformer: Any,
    latents: Any,
    sigma: Any,
    prompts: Any,
    pooled: Any,
    image_ids: Any,
    scale: float,
    tau: float,
    alpha: float,
) -> Any:
    """Velocity (B, T, C). prompts, pooled: pairs (positive, negative) of (B, L, C) and (B, P)."""
    t = transformer
    temb = [t.time_text_embed(sigma * 1000, each) for each in pooled]
    text = [t.context_embedder(each) for each in prompts]
    image = t.x_embedder(latents)
    rotary = t.pos_embed(torch.cat([image_ids.new_zeros(text[0].shape[1], 3), image_ids]))
    length = text[0].shape[1]

    def guide(z_plus: torch.Tensor, z_minus: torch.Tensor) -> Any:
        extrapolated = scale * z_plus - (scale - 1) * z_minus
        ratio = extrapolated.abs().sum(-1, keepdim=True) / z_plus.abs().sum(-1, keepdim=True)
        normalized = extrapolated * torch.minimum(ratio, torch.full_like(ratio, tau)) / ratio
        return alpha * normalized + (1 - alpha) * z_plus

    def heads(attn: Any, states: torch.Tensor, norm: Any = None) -> Any:
        states = states.unflatten(-1, (attn.heads, -1))
        return states if norm is None else norm(states)

    def attend(query: torch.Tensor, key: torch.Tensor, value: Any) -> Any:
        query, key = (apply_rotary_emb(each, rotary, sequence_dim=1) for each in (query, key))
        weights = torch.einsum("bthd,bshd->bhts", query, key).div(query.shape[-1] ** 0.5).softmax(-1)
        return torch.einsum("bhts,bshd->bthd", weights, value).flatten(2)

    for block in t.transformer_blocks:
        attn = block.attn
        x, gate, shift_mlp, scale_mlp, gate_mlp = block.norm1(image, emb=temb[0])
        image_qkv = (
            heads(attn, attn.to_q(x), attn.norm_q),
            heads(attn, attn.to_k(x), attn.norm_k),
            heads(attn, attn.to_v(x)),
        )
        outs, modulations = [], []
        for stream in (0, 1):
            c, *modulation = block.norm1_context(text[stream], emb=temb[stream])
            text_qkv = (
                heads(attn, attn.add_q_proj(c), attn.norm_added_q),
                heads(attn, attn.add_k_proj(c), attn.norm_added_k),
                heads(attn, attn.add_v_proj(c)),
            )
            outs.append(attend(*(torch.cat(pair, dim=1) for pair in zip(text_qkv, image_qkv, strict=True))))
            modulations.append(modulation)
        image = image + gate[:, None] * attn.to_out[0](guide(outs[0][:, length:], outs[1][:, length:]))
        y = block.norm2(image) * (1 + scale_mlp[:, None]) + shift_mlp[:, None]
        image = image + gate_mlp[:, None] * block.ff(y)
        for stream in (0, 1):
            c_gate, c_shift, c_scale, c_gate_mlp = modulations[stream]
            text[stream] = text[stream] + c_gate[:, None] * attn.to_add_out(outs[stream][:, :length])
            y = block.norm2_context(text[stream]) * (1 + c_scale[:, None]) + c_shift[:, None]
            text[stream] = text[stream] + c_gate_mlp[:, None] * block.ff_context(y)

    lanes = [torch.cat([each, image], dim=1) for each in text]
    for block in t.single_transformer_blocks:
        attn = block.attn
        normed = [block.norm(lane, emb=e) for lane, e in zip(lanes, temb, strict=True)]
        outs = [
            attend(
                heads(attn, attn.to_q(x), attn.norm_q),
                heads(attn, attn.to_k(x), attn.norm_k),
                heads(attn, attn.to_v(x)),
            )
            for x, _ in normed
        ]
        shared = guide(outs[0][:, length:], outs[1][:, length:])
        for i in (0, 1):
            x, gate = normed[i]
            mixed = torch.cat(
                [torch.cat([outs[i][:, :length], shared], dim=1), block.act_mlp(block.proj_mlp(x))], dim=2
            )
            lanes[i] = lanes[i] + gate[:, None] * block.proj_out(mixed)
    return t.proj_out(t.norm_out(lanes[0][:, length:], temb[0]))
