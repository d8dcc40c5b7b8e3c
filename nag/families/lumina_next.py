"""Lumina-Next: cross attention to masked Gemma tokens, which are the same at every step.

The mean of the prompt's tokens also enters the modulation: there the positive's stay alone. Under CFG the conditional
rows come first, and the timestep runs from noise at 0 to the image at 1.
"""

from __future__ import annotations

from typing import Any

from nag.families.family import Family
from nag.guidance_state import GuidanceState
from nag.guided_step import GuidedStep
from nag.params import NAGParams
from nag.pipelines import named_arguments
from nag.step_hooks import StepHooks

__all__ = ["LuminaNext"]


class LuminaNext(Family):
    name = "Lumina-Next"
    models = "Lumina-Next-SFT, Lumina-T2I"
    defaults = NAGParams(scale=5.0, tau=2.5, alpha=0.375)
    source = "as SANA, not tuned"
    attention = "cross"
    denoiser_types = ("LuminaNextDiT2DModel",)
    attention_modules = ("layers.*.attn2",)
    processors = ("LuminaAttnProcessor2_0",)
    denoiser_mask_arg = "encoder_mask"
    negative_mask_arg = "negative_prompt_attention_mask"
    timestep_unit = 1000.0
    timestep_rises = True
    caches_text_kv = True
    cfg = "batched"

    def rows(self, pipe: Any, state: GuidanceState, call: dict[str, Any]) -> slice | None:
        second_half = super().rows(pipe, state, call)
        assert second_half is not None
        return slice(0, second_half.start or second_half.stop)

    def hooks(self, denoiser: Any, hooks: StepHooks) -> None:
        forward = denoiser.time_caption_embed.forward

        def keep_positive(step: GuidedStep, args: Any, kwargs: Any) -> Any:
            call = named_arguments(forward, args, kwargs)
            tokens = slice(step.token_layout.positive)
            return (), call | {name: call[name][:, tokens] for name in ("caption_feat", "caption_mask")}

        hooks.before(denoiser.time_caption_embed, keep_positive)
