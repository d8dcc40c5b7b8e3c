"""Stable Diffusion 1.5/2 and SDXL: cross attention in a UNet; the negative prompt is a second set of keys, values."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from typing import Any

from diffusers import UNet2DConditionModel
from diffusers.models import attention_processor as theirs
from torch import Tensor, nn

from nag.errors import UnsupportedPipeline
from nag.families.family import Family, encode_alone, on_denoiser, swap_processors
from nag.params import NAGParams
from nag.processors import CrossAttentionProcessor
from nag.session import Negative, Session

__all__ = ["SD", "SDXL"]

#: Processors that compute plain attention, however they slice or fuse it.
PLAIN = (
    theirs.AttnProcessor,
    theirs.AttnProcessor2_0,
    theirs.FusedAttnProcessor2_0,
    theirs.SlicedAttnProcessor,
    theirs.XFormersAttnProcessor,
)


def _matches(pipe: Any) -> bool:
    return isinstance(getattr(pipe, "unet", None), UNet2DConditionModel)


def _matches_xl(pipe: Any) -> bool:
    return _matches(pipe) and pipe.unet.config.addition_embed_type == "text_time"


def _denoiser(pipe: Any) -> nn.Module:
    unet: nn.Module = pipe.unet
    return unet


def _encode(encode_prompt: Callable[..., Any], prompts: Sequence[str], arguments: dict[str, Any]) -> Negative:
    return Negative(encode_alone(encode_prompt, prompts, arguments)[0])


def _enter(pipe: Any, session: Session, stack: ExitStack, reference: bool) -> None:  # noqa: ARG001 (one form only)
    unet = pipe.unet
    attentions = [module for module in unet.modules() if isinstance(module, theirs.Attention)]
    crossing = [module for module in attentions if module.is_cross_attention]
    if any(module.added_kv_proj_dim is not None for module in attentions):
        raise UnsupportedPipeline("this UNet adds text keys to its self attention, which guidance does not enter")
    if not hasattr(pipe, "do_classifier_free_guidance"):
        raise UnsupportedPipeline(f"{type(pipe).__name__} does not tell which rows of its batch are conditional")
    swap_processors(crossing, lambda plain: CrossAttentionProcessor(session, plain), PLAIN, stack)

    def plan(call: dict[str, Any]) -> dict[str, Any]:
        embeds: Tensor = call["encoder_hidden_states"]
        # These pipelines stack `[unconditional | conditional]` when they run CFG.
        first = len(embeds) // 2 if session.run is not None and pipe.do_classifier_free_guidance else 0
        session.step = session.plan(embeds, slice(first, len(embeds)), lambda: _timestep(call["timestep"]))
        return call

    on_denoiser(unet, session, stack, plan)


def _timestep(timestep: Tensor | float) -> float:
    return float(timestep.flatten()[0]) if isinstance(timestep, Tensor) else float(timestep)


SD = Family(
    name="Stable Diffusion 1.5/2",
    defaults=NAGParams(scale=3.0, tau=2.5, alpha=0.375),
    source="arXiv 2505.21179, table 5",
    matches=_matches,
    denoiser=_denoiser,
    encode=_encode,
    enter=_enter,
)

SDXL = Family(
    name="SDXL",
    defaults=NAGParams(scale=3.0, tau=2.5, alpha=0.5),
    source="arXiv 2505.21179, table 5",
    matches=_matches_xl,
    denoiser=_denoiser,
    encode=_encode,
    enter=_enter,
)
