"""HunyuanVideo 1.0, 1.5, Framepack, HunyuanImage: joint attention, image first, rotary positions of the image alone.

Each prompt passes the text refiner on its own, which reads the mean of its tokens. Rows are then ordered each by its
own masks, `[tokens | padding]`, so tokens are told by role. HunyuanVideo 1.0's pooled prompt stays the positive's; the
other models but Framepack read a second text, of what the prompt puts in quotes; 1.5 and Framepack read an image,
which both prompts see.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import replace
from typing import Any, ClassVar

import torch
from torch import Tensor

from nag.families.arguments import ROWS, Argument, Rows, once_per_tensor
from nag.families.arguments import SHARED as EQUAL
from nag.families.family import Family
from nag.guided_step import GuidedStep
from nag.negative import NegativeEmbeds
from nag.params import NAGParams
from nag.pipelines import Arguments
from nag.processors.per_row_mask import NEGATIVE, NOBODY, POSITIVE, SHARED, TokenRoleProcessor, TokenRoles
from nag.step_hooks import StepHooks
from nag.token_layout import TokenLayout

__all__ = ["Framepack", "HunyuanImage", "HunyuanVideo", "HunyuanVideo15"]

#: Framepack's places in time of the frames that it denoises and of those that it has.
INDICES = (
    "indices_latents",
    "indices_latents_clean",
    "indices_latents_history_2x",
    "indices_latents_history_4x",
)


class HunyuanVideo(Family):
    name = "HunyuanVideo"
    models = "HunyuanVideo 1.0, SkyReels-V1"
    defaults = NAGParams(scale=9.0, tau=2.5, alpha=0.12)
    source = "from ports, not tuned"
    attention = "joint"
    denoiser_types = ("HunyuanVideoTransformer3DModel",)
    attention_modules: ClassVar[tuple[str, ...]] = ("transformer_blocks.*.attn", "single_transformer_blocks.*.attn")
    processor_class = TokenRoleProcessor
    processors = ("HunyuanVideoAttnProcessor2_0",)
    negative_mask_arg = "negative_prompt_attention_mask"
    text_last = True
    cfg = "separate"
    notes: ClassVar[str | None] = "equation 7, the positive's pooled prompt"
    is_packed = False
    encoded: ClassVar[tuple[str, ...]] = ("embeds", "pooled", "mask")

    def text_roles(self, call: dict[str, Any]) -> Tensor:
        """Returns the roles of the text tokens as the model orders them, (B, L), by counting the ones of the mask."""
        return _make_roles((POSITIVE, call["encoder_attention_mask"].sum(dim=1)), length=self.embeds(call).shape[1])

    def layout(self, call: dict[str, Any], negative: NegativeEmbeds) -> TokenLayout:
        mask = torch.cat([negative.token_mask, *_second_text(negative)[1:]], dim=1)
        of_text = self.text_roles(call)
        of = torch.cat([of_text, torch.where(mask.bool(), NEGATIVE, NOBODY)], dim=1)
        return TokenRoles(of_text.shape[1], mask.shape[1], text_last=True, of=of)

    def tokens(self, denoiser: Any, negative: NegativeEmbeds, timestep: Tensor) -> Tensor:
        """Returns the negative's text as the blocks take it, in the order of its masks."""
        refined = denoiser.context_embedder.forward(negative.embeds, timestep, negative.token_mask)
        second = _second_text(negative)[:1]
        return torch.cat([refined, *(denoiser.context_embedder_2(text) for text in second)], dim=1)

    def hooks(self, denoiser: Any, hooks: StepHooks) -> None:
        def embed(step: GuidedStep, args: Any, output: Tensor) -> Tensor:
            step.scratch["tokens"] = self.tokens(denoiser, step.negative, args[1][step.rows])
            return output

        def tokens(step: GuidedStep) -> Tensor:
            tokens: Tensor = step.scratch["tokens"]
            return tokens

        hooks.after(denoiser.context_embedder, embed)
        hooks.append_text(denoiser.transformer_blocks[0], 1, "encoder_hidden_states", tokens)


class Framepack(HunyuanVideo):
    name = "HunyuanVideo-Framepack"
    models = "FramePack I2V, F1"
    source = "as HunyuanVideo, not tuned"
    denoiser_types = ("HunyuanVideoFramepackTransformer3DModel",)
    arguments: ClassVar[dict[str, Argument]] = {
        **dict.fromkeys(("latents_clean", "latents_history_2x", "latents_history_4x"), ROWS),
        **dict.fromkeys(INDICES, EQUAL),
    }
    compiled = "in parts"

    def text_roles(self, call: dict[str, Any]) -> Tensor:
        # The model puts the start image's tokens ahead of the text, and cuts the padding off a single prompt.
        mask, image = call["encoder_attention_mask"], call["image_embeds"].shape[1]
        tokens = mask.sum(dim=1).long()
        length = mask.shape[1] if len(mask) > 1 else int(tokens)
        return _make_roles((SHARED, torch.full_like(tokens, image)), (POSITIVE, tokens), length=image + length)


class HunyuanImage(HunyuanVideo):
    name = "HunyuanImage"
    models = "HunyuanImage 2.1 and its refiner"
    compiled = "in parts"
    denoiser_types = ("HunyuanImageTransformer2DModel",)
    processors = ("HunyuanImageAttnProcessor",)
    negative_mask_arg = "negative_prompt_embeds_mask"
    notes: ClassVar[str | None] = None
    encoded = ("embeds", "mask", "prompt_embeds_2", "prompt_embeds_mask_2")
    prompt_arguments: ClassVar[dict[str, str]] = {
        "encoder_hidden_states": "embeds",
        "encoder_attention_mask": "mask",
        "encoder_hidden_states_2": "prompt_embeds_2",
        "encoder_attention_mask_2": "prompt_embeds_mask_2",
    }

    def encode(self, encode_prompt: Callable[..., Any], prompts: Sequence[str], arguments: Arguments) -> NegativeEmbeds:
        return super().encode(encode_prompt, prompts, arguments | {"batch_size": len(prompts)})

    def negative_embeds(self, encoded: Mapping[str, Any]) -> NegativeEmbeds:
        negative, mask = super().negative_embeds(encoded), encoded.get("prompt_embeds_mask_2")
        if mask is None or not mask.any():  # nothing in quotes
            return negative
        return replace(negative, extra={"embeds_2": encoded["prompt_embeds_2"], "mask_2": mask})

    def text_roles(self, call: dict[str, Any]) -> Tensor:
        masks = [call["encoder_attention_mask"], call.get("encoder_attention_mask_2")]
        mask = torch.cat([mask for mask in masks if mask is not None], dim=1)
        if masks[1] is None:
            # The refiner's model has no second text and leaves the tokens where they are.
            return torch.where(mask.bool(), POSITIVE, NOBODY)
        return _make_roles((POSITIVE, mask.sum(dim=1)), length=mask.shape[1])


class _Images(Rows):
    """Images of a model that checks whether any row of a call has one: calls with and without images do not join."""

    rule = "must have an image in all calls or in none"

    def key(self, value: Any, rows: int) -> Hashable:
        return super().key(value, rows), _is_zero(value)


@once_per_tensor
def _is_zero(tensor: Tensor) -> Hashable:
    return not bool(tensor.any())


class HunyuanVideo15(HunyuanImage):
    name = "HunyuanVideo 1.5"
    models = "HunyuanVideo 1.5, text and image to video"
    denoiser_types = ("HunyuanVideo15Transformer3DModel",)
    attention_modules = ("transformer_blocks.*.attn",)
    processors = ("HunyuanVideo15AttnProcessor2_0",)
    arguments: ClassVar[dict[str, Argument]] = {"image_embeds": _Images()}

    def text_roles(self, call: dict[str, Any]) -> Tensor:
        mask = torch.cat([call["encoder_attention_mask"], call["encoder_attention_mask_2"]], dim=1)
        image = call["image_embeds"]
        seen = torch.full_like(mask[:, 0], image.shape[1]) * image.any()
        return _make_roles((SHARED, seen), (POSITIVE, mask.sum(dim=1)), length=image.shape[1] + mask.shape[1])

    def tokens(self, denoiser: Any, negative: NegativeEmbeds, timestep: Tensor) -> Tensor:
        tokens = super().tokens(denoiser, negative, timestep)
        kind = torch.zeros(tokens.shape[:2], dtype=torch.long, device=tokens.device)
        kind[:, negative.embeds.shape[1] :] = 1
        embedding: Tensor = denoiser.cond_type_embed(kind)
        return tokens + embedding


def _second_text(negative: NegativeEmbeds) -> list[Tensor]:
    """Returns the negative's second text and its mask, or nothing."""
    return [negative.extra[name] for name in ("embeds_2", "mask_2") if name in negative.extra]


def _make_roles(*parts: tuple[int, Tensor], length: int) -> Tensor:
    """Returns roles (B, length) of rows that begin with counts (B,) of each part's tokens; the rest is padding."""
    end = sum(count for _, count in parts)
    assert isinstance(end, Tensor)
    place = torch.arange(length, device=end.device)
    roles = torch.full((len(end), length), NOBODY, device=end.device)
    for role, count in reversed(parts):
        roles = torch.where(place < end[:, None], role, roles)
        end = end - count
    return roles
