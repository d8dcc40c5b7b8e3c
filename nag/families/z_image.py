"""Z-Image: rows of `[image | text | padding]`; an image's rotary positions begin where its text ends.

The image keeps the places that the positive gives it. The negative is embedded and refined on its own, with the pad
tokens that the model fills texts up with, and follows the padding from the first layer on. CFG's rows are
`[conditional | unconditional]`. Refused: the Omni model, which has its prompt in parts between its images, and
ControlNet, which adds to the text's tokens what it makes of the positive's.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor

from nag._diffusers import cfg_truncation, z_image_padded, z_image_sequence
from nag.errors import UnsupportedPipeline
from nag.families.arguments import LISTED, NUMBERS, PADDED, Argument
from nag.families.family import Family
from nag.guidance_state import GuidanceState
from nag.guided_step import GuidedStep
from nag.negative import NegativeEmbeds, scatter_rows
from nag.processor_swap import class_names
from nag.processors.per_row_mask import TokenRoleProcessor, text_behind
from nag.step_hooks import StepHooks
from nag.token_layout import TokenLayout

__all__ = ["ZImage"]

#: The model fills every text up to a multiple of this.
MULTIPLE = 32


class ZImage(Family):
    name = "Z-Image"
    models = "Z-Image, Z-Image-Turbo"
    attention = "joint"
    denoiser_types = ("ZImageTransformer2DModel",)
    attention_modules = ("layers.*.attention",)
    processor_class = TokenRoleProcessor
    processors = ("ZSingleStreamAttnProcessor",)
    negative_mask_arg = "negative_prompt_attention_mask"
    text_last = True
    timestep_argument = "t"
    timestep_unit = 1000.0
    timestep_rises = True
    arguments: ClassVar[dict[str, Argument]] = {"x": LISTED, "t": NUMBERS, "cap_feats": PADDED}
    cfg = "batched"
    cfg_off = 0.0
    encoded = ("embeds",)
    prompt_arguments: ClassVar[dict[str, str]] = {"cap_feats": "embeds"}
    is_packed = False
    compiled = "in parts"

    def check(self, pipe: Any) -> None:
        if getattr(pipe, "controlnet", None) is not None:
            raise UnsupportedPipeline("this ControlNet adds to the prompt's tokens, and knows of one prompt alone")
        if "ZImageOmniPipeline" in class_names(pipe):
            raise UnsupportedPipeline("this model's prompt stands in parts between its images, which are not entered")

    def embeds(self, call: dict[str, Any]) -> Tensor:
        # Texts are of any lengths; what is asked of them here is how many, of what kind and where.
        return torch.stack([text[:1] for text in call["cap_feats"]])

    def rows(self, pipe: Any, state: GuidanceState, call: dict[str, Any]) -> slice | None:
        if isinstance(call["x"][0], list) or call.get("controlnet_block_samples") is not None:
            raise UnsupportedPipeline(
                "the denoiser was called with several images a row or with ControlNet's residuals"
            )
        count = len(call["cap_feats"])
        if state.is_call_conditional is not None or not state.inside_pipeline_call:
            return super().rows(pipe, state, call)
        truncation = cfg_truncation(pipe)
        # From a certain step on, a pipeline may leave CFG.
        truncated = truncation is not None and float(truncation) <= 1 and float(call["t"][0]) > truncation
        if pipe.do_classifier_free_guidance and not truncated:
            count //= 2
        if state.pipeline_call is not None:
            # The pipelines copy prompts for several images each after they have encoded them.
            state.pipeline_call.images_per_prompt = count // state.pipeline_call.prompts
        return slice(0, count)

    def layout(self, call: dict[str, Any], negative: NegativeEmbeds) -> TokenLayout:
        positive = [len(text) for text in call["cap_feats"]]
        device = negative.embeds.device
        return text_behind(
            *(_masks_of_lengths(lengths, device) for lengths in (positive, negative.token_mask.sum(dim=1).tolist()))
        )

    def hooks(self, denoiser: Any, hooks: StepHooks) -> None:
        # Two hooks, for which of its layers it is in a compiler may not ask.
        def append_tokens(step: GuidedStep, args: Any, kwargs: Any) -> Any:
            tokens, *others = args
            embedded, step.scratch["rotary"] = (
                scatter_rows(e, step.rows, len(tokens)) for e in _embed_text(denoiser, step.negative)
            )
            return (torch.cat([tokens, embedded], dim=1), *others), kwargs

        def append_places(step: GuidedStep, args: Any, kwargs: Any) -> Any:
            tokens, mask, rotary, *others = args
            return (tokens, mask, torch.cat([rotary, step.scratch["rotary"]], dim=1), *others), kwargs

        hooks.before(denoiser.layers[0], append_tokens)
        for layer in denoiser.layers:
            hooks.before(layer, append_places)


def _embed_text(denoiser: Any, negative: NegativeEmbeds) -> tuple[Tensor, Tensor]:
    """Returns the negative's text as the layers get it and its rotary positions from the start, (N, L, ...) each."""
    texts = [text[mask.bool()] for text, mask in zip(negative.embeds, negative.token_mask, strict=True)]
    sizes = [len(text) + -len(text) % MULTIPLE for text in texts]
    filled, places, padding, *_ = zip(
        *(z_image_padded(denoiser, text, size) for text, size in zip(texts, sizes, strict=True)), strict=True
    )
    embedded = denoiser.cap_embedder(torch.cat(filled)).split(sizes)
    tokens, rotary, mask, *_ = z_image_sequence(denoiser, list(embedded), list(places), list(padding))
    for layer in denoiser.context_refiner:
        tokens = layer(tokens, mask, rotary)
    return tokens, rotary


def _masks_of_lengths(lengths: Sequence[float], device: torch.device) -> Tensor:
    """Returns masks (B, L) of texts of these lengths, which the model fills up."""
    sizes = torch.tensor([n + -n % MULTIPLE for n in lengths], device=device)
    return torch.arange(int(sizes.max()), device=device) < sizes[:, None]
