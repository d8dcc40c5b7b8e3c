"""HunyuanDiT: cross attention to CLIP's and T5's tokens together, which are the same at every step.

Padding has learnt tokens of its own, one a place, so the negative's text is made as the model makes the positive's and
reaches the attention modules by hooks. T5's tokens also enter the modulation: there the positive's stay alone.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor

from nag.families.arguments import NUMBERS, ROWS, Argument
from nag.families.family import Family
from nag.guided_step import GuidedStep
from nag.negative import NegativeEmbeds
from nag.params import NAGParams
from nag.pipelines import Arguments, encode_prompts
from nag.step_hooks import StepHooks
from nag.token_layout import TokenLayout

__all__ = ["HunyuanDiT"]


class HunyuanDiT(Family):
    name = "HunyuanDiT"
    models = "HunyuanDiT 1.0 to 1.2, with ControlNet or PAG"
    defaults = NAGParams(scale=5.0, tau=2.5, alpha=0.375)
    source = "as PixArt-Σ, not tuned"
    attention = "cross"
    denoiser_types = ("HunyuanDiT2DModel",)
    attention_modules = ("blocks.*.attn2",)
    processors = ("HunyuanAttnProcessor2_0", "FusedHunyuanAttnProcessor2_0")
    denoiser_mask_arg = "text_embedding_mask"
    negative_mask_arg = "negative_prompt_attention_mask"
    extra_negative_inputs: ClassVar[dict[str, str]] = {
        "negative_prompt_embeds_2": "encoder_hidden_states_t5",
        "negative_prompt_attention_mask_2": "text_embedding_mask_t5",
    }
    caches_text_kv = True
    arguments: ClassVar[dict[str, Argument]] = {
        **dict.fromkeys(("encoder_hidden_states", "text_embedding_mask", "text_embedding_mask_t5"), ROWS),
        **dict.fromkeys(("image_meta_size", "style"), NUMBERS),
    }
    cfg = "batched"
    is_packed = False

    def encode(self, encode_prompt: Callable[..., Any], prompts: Sequence[str], arguments: Arguments) -> NegativeEmbeds:
        # The lengths are those that the pipelines write into their two calls.
        of_clip, of_t5 = (
            encode_prompts(
                encode_prompt, prompts, arguments | {"text_encoder_index": index, "max_sequence_length": length}
            )
            for index, length in ((0, 77), (1, 256))
        )
        more = {"encoder_hidden_states_t5": of_t5[0], "text_embedding_mask_t5": of_t5[2]}
        return NegativeEmbeds(of_clip[0], mask=of_clip[2], extra=more)

    def layout(self, call: dict[str, Any], negative: NegativeEmbeds) -> TokenLayout:
        of_t5 = "encoder_hidden_states_t5"
        return TokenLayout(
            self.embeds(call).shape[1] + call[of_t5].shape[1],
            negative.embeds.shape[1] + negative.extra[of_t5].shape[1],
        )

    def hooks(self, denoiser: Any, hooks: StepHooks) -> None:
        def append(step: GuidedStep, args: Any, kwargs: dict[str, Any]) -> Any:
            text = kwargs["encoder_hidden_states"]
            negative = _text(denoiser, step.negative.scatter_rows(step.rows, len(text)))
            return args, kwargs | {"encoder_hidden_states": torch.cat([text, negative], dim=1)}

        for attention in self.attentions(denoiser):
            hooks.before(attention, append)


def _text(denoiser: Any, negative: NegativeEmbeds) -> Tensor:
    """Returns the negative's tokens as the blocks read a prompt, (B, L, C)."""
    assert negative.mask is not None
    tokens = torch.cat([negative.embeds, denoiser.text_embedder(negative.extra["encoder_hidden_states_t5"])], dim=1)
    mask = torch.cat([negative.mask, negative.extra["text_embedding_mask_t5"]], dim=1).unsqueeze(2).bool()
    return torch.where(mask, tokens, denoiser.text_embedding_padding)
