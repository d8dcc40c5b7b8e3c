"""Cosmos 3: text attends to itself causally; video, sound and action attend to the text and to one another.

All but the text is guided, and stands where the positive's length has put it. The text sees nothing but its own prompt,
so the negative's is counted from zero again. Prompts are token ids, which count as embeddings of one channel; a
negative is put in the words of a prompt, not in those of CFG's negative ("The video is not 5 seconds long").
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from nag.families.family import Family
from nag.guidance_state import GuidanceState
from nag.negative import NegativeEmbeds, pad_prompts
from nag.pipelines import Arguments
from nag.processors.causal import CausalTextProcessor

__all__ = ["Cosmos3"]


class Cosmos3(Family):
    name = "Cosmos 3"
    models = "Omni: text, image, video or control to video, sound and action; distilled"
    attention = "joint"
    denoiser_types = ("Cosmos3OmniTransformer",)
    attention_modules = ("layers.*.self_attn",)
    processor_class = CausalTextProcessor
    processors = ("Cosmos3AttnProcessor",)
    timestep_argument = "vision_timesteps"
    cfg = "separate"
    encoders = ("tokenize_prompt",)
    cannot_join = "packs one request into one sequence"

    def encode(self, encode_prompt: Callable[..., Any], prompts: Sequence[str], arguments: Arguments) -> NegativeEmbeds:
        tokens = [encode_prompt(**(arguments | {"prompt": prompt}))[0] for prompt in prompts]
        return pad_prompts([_embeds(torch.tensor(ids)) for ids in tokens])

    def negative_embeds(self, encoded: Mapping[str, Any]) -> NegativeEmbeds:
        return NegativeEmbeds(_embeds(torch.tensor(encoded["cond_input_ids"]))[None])

    def embeds(self, call: dict[str, Any]) -> Tensor:
        return _embeds(call["input_ids"])[None]

    def row_count(self, call: Mapping[str, Any]) -> int:  # noqa: ARG002 (of one request)
        return 1

    def rows(self, pipe: Any, state: GuidanceState, call: dict[str, Any]) -> slice | None:  # noqa: ARG002
        return slice(0, 1) if state.is_conditional(call["input_ids"], call["vision_timesteps"]) else None

    def pack(self, call: dict[str, Any], negative: NegativeEmbeds) -> dict[str, Any]:
        places, text, count = call["position_ids"], call["und_len"], negative.embeds.shape[1]
        negative_places = places[:, :1] + torch.arange(count, device=places.device)
        moved = {
            name: call[name] + count
            for name in call
            if name.endswith(("_sequence_indexes", "_mse_loss_indexes")) and call[name] is not None
        }
        return (
            call
            | moved
            | {
                "input_ids": torch.cat([call["input_ids"], negative.embeds[0, :, 0].long()]),
                "text_indexes": torch.arange(text + count, device=places.device),
                "position_ids": torch.cat([places[:, :text], negative_places, places[:, text:]], dim=1),
                "und_len": text + count,
                "sequence_length": call["sequence_length"] + count,
            }
        )


def _embeds(ids: Tensor) -> Tensor:
    """Converts token ids (L,) to embeddings (L, 1)."""
    return ids.float()[:, None]
