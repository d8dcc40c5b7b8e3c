"""CogVideoX and ConsisID: joint attention, text first; rotary positions, if there are any, are of the image alone.

The patch embedding adds positions to a text of one fixed length, so the negative's tokens join at the first block.
ConsisID's attention to a face stays plain, and the negative's tokens leave it behind the last block.
"""

from __future__ import annotations

from typing import Any, ClassVar

from torch import Tensor

from nag.families.arguments import ROWS, SHARED, Argument
from nag.families.family import Family
from nag.guided_step import GuidedStep
from nag.step_hooks import StepHooks

__all__ = ["CogVideoX", "ConsisID"]


class CogVideoX(Family):
    name = "CogVideoX"
    models = "CogVideoX 1.0 and 1.5; text, image and video to video, Fun"
    attention = "joint"
    denoiser_types = ("CogVideoXTransformer3DModel",)
    attention_modules = ("transformer_blocks.*.attn1",)
    processors = ("CogVideoXAttnProcessor2_0", "FusedCogVideoXAttnProcessor2_0")
    cfg = "batched"
    is_packed = False

    arguments: ClassVar[dict[str, Argument]] = {"ofs": SHARED}  # a number of CogVideoX 1.5's image to video

    def hooks(self, denoiser: Any, hooks: StepHooks) -> None:
        embed = denoiser.patch_embed

        def tokens(step: GuidedStep) -> Tensor:
            negative: Tensor = embed.text_proj(step.negative.embeds)
            if embed.use_learned_positional_embeddings:
                negative = negative + embed.pos_embedding[:, : negative.shape[1]].to(negative)
            return negative

        hooks.append_text(denoiser.transformer_blocks[0], 1, "encoder_hidden_states", tokens)


class ConsisID(CogVideoX):
    name = "ConsisID"
    models = "ConsisID-preview"
    denoiser_types = ("ConsisIDTransformer3DModel",)
    arguments: ClassVar[dict[str, Argument]] = dict.fromkeys(("id_cond", "id_vit_hidden"), ROWS)

    def hooks(self, denoiser: Any, hooks: StepHooks) -> None:
        super().hooks(denoiser, hooks)

        def drop_negative(step: GuidedStep, args: tuple[Tensor], kwargs: Any) -> Any:
            # Behind the blocks the model takes as many tokens for text as its own prompt has.
            return (step.token_layout.of_one(args[0], 1, negative=False),), kwargs

        hooks.before(denoiser.norm_final, drop_negative)
