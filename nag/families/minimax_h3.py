"""MiniMax-H3: one packed sequence `[text | conditions | audio | video]`; every token but the text's is guided.

Text stands at its place on the time axis, so the negative's counts from zero again, and the media's clock stays where
the positive's length has put it. Blocks of their own refine the text, each prompt's by itself.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, ClassVar

import torch

from nag.families.arguments import SHARED, Argument
from nag.families.family import Family
from nag.guided_step import GuidedStep
from nag.negative import NegativeEmbeds
from nag.processors import JointAttentionProcessor

__all__ = ["MiniMaxH3"]

#: What the model calls a token of text; those of images in a prompt are tagged as video.
TEXT_TAG = 1


class _Processor(JointAttentionProcessor):
    """Knows the blocks that refine the text by their lack of positions: every rank has all of it there."""

    def run(
        self, step: GuidedStep, attn: Any, hidden_states: Any, rotary_emb: Any = None, *args: Any, **kwargs: Any
    ) -> Any:
        if rotary_emb is None and step.split is not None:
            step = replace(step, split=None)
        return super().run(step, attn, hidden_states, rotary_emb, *args, **kwargs)


class MiniMaxH3(Family):
    name = "MiniMax-H3"
    models = "text, keyframes or references to video with sound"
    attention = "joint"
    denoiser_types = ("MiniMaxH3Transformer3DModel",)
    attention_modules = ("token_refiner.refiner_blocks.*.attn", "transformer_blocks.*.attn")
    processor_class = _Processor
    processors = ("MiniMaxH3AttnProcessor",)
    # All rows of a call have one layout, and its timesteps are of its tokens.
    arguments: ClassVar[dict[str, Argument]] = dict.fromkeys(
        ("timestep", "timestep_indices", "token_tags", "video_indices", "audio_indices", "text_indices"), SHARED
    )
    extra_negative_inputs: ClassVar[dict[str, str]] = {"negative_text_token_tags": "token_tags"}
    cfg = "separate"
    context_parallel = denoiser_types
    is_split_as_one = True

    def negative_embeds(self, encoded: Mapping[str, Any]) -> NegativeEmbeds:
        return NegativeEmbeds(encoded["embeds"], extra={"token_tags": encoded["text_token_tags"][None]})

    def timestep(self, pipe: Any, call: dict[str, Any]) -> float:  # noqa: ARG002 (the call states it)
        # It rises from noise at 0; sound and conditions have others, which are nearer to their end.
        return 1000 * (1 - float(call["timestep"].min()))

    def image_tokens(self, call: dict[str, Any]) -> int:
        return len(call["position_ids"]) - int(self.embeds(call).shape[1])

    def pack(self, call: dict[str, Any], negative: NegativeEmbeds) -> dict[str, Any]:
        text, count = self.embeds(call).shape[1], negative.embeds.shape[1]
        places, timesteps, tags = (call[name] for name in ("position_ids", "timestep_indices", "token_tags"))
        negative_places = places.new_zeros(count, places.shape[1])
        negative_places[:, 0] = torch.arange(count)
        encoded_tags = negative.extra.get("token_tags")
        negative_tags = tags.new_full((count,), TEXT_TAG) if encoded_tags is None else encoded_tags[0]
        inserted = {
            "position_ids": negative_places,
            "timestep_indices": timesteps[:1].expand(count),
            "token_tags": negative_tags,
        }
        packed = super().pack(call, negative) | {
            name: torch.cat([call[name][:text], tokens, call[name][text:]]) for name, tokens in inserted.items()
        }
        packed["text_indices"] = torch.arange(text + count, device=tags.device)
        return packed | {name: call[name] + count for name in ("audio_indices", "video_indices")}
