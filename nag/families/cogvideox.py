"""CogVideoX and ConsisID: joint attention, text first; rotary positions, where there are any, are of the image alone.

The patch embedding adds positions to a text of one fixed length, so the negative's tokens join at the first block.
ConsisID's attention to a face stays plain, and the negative's tokens leave it behind the last block.
"""

from __future__ import annotations

from contextlib import ExitStack
from typing import Any, ClassVar

from torch import Tensor

from nag.current import CurrentStep
from nag.families.append_text import append_to_block
from nag.families.arguments import ROWS, Argument
from nag.families.family import Family
from nag.negative import NegativeEmbeds

__all__ = ["CogVideoX", "ConsisID"]


class CogVideoX(Family):
    name = "CogVideoX"
    models = "CogVideoX 1.0 and 1.5; text, image and video to video, Fun"
    attention = "joint"
    denoiser_types = ("CogVideoXTransformer3DModel",)
    attention_modules = ("transformer_blocks.*.attn1",)
    processors = ("CogVideoXAttnProcessor2_0", "FusedCogVideoXAttnProcessor2_0")
    cfg = "batched"

    def pack(self, call: dict[str, Any], negative: NegativeEmbeds) -> dict[str, Any]:  # noqa: ARG002 (see `hooks`)
        return call

    def hooks(self, denoiser: Any, current: CurrentStep, stack: ExitStack) -> None:
        embed = denoiser.patch_embed

        def tokens() -> Tensor:
            assert current.step is not None
            negative: Tensor = embed.text_proj(current.step.negative.embeds)
            if embed.use_learned_positional_embeddings:
                negative = negative + embed.pos_embedding[:, : negative.shape[1]].to(negative)
            return negative

        append_to_block(denoiser.transformer_blocks[0], 1, "encoder_hidden_states", tokens, current, stack)


class ConsisID(CogVideoX):
    name = "ConsisID"
    models = "ConsisID-preview"
    denoiser_types = ("ConsisIDTransformer3DModel",)
    arguments: ClassVar[dict[str, Argument]] = dict.fromkeys(("id_cond", "id_vit_hidden"), ROWS)

    def hooks(self, denoiser: Any, current: CurrentStep, stack: ExitStack) -> None:
        super().hooks(denoiser, current, stack)

        def drop_negative(module: Any, args: tuple[Tensor]) -> tuple[Tensor]:  # noqa: ARG001 (torch's signature)
            # Behind the blocks the model takes as many tokens for text as its own prompt has.
            if current.step is None or current.step.layout is None:
                return args
            return (current.step.layout.of_one(args[0], 1, negative=False),)

        stack.callback(denoiser.norm_final.register_forward_pre_hook(drop_negative).remove)
