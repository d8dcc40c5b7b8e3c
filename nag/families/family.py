"""The base class of model families: how a denoiser of the family is guided."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from nag._diffusers import current_timestep
from nag.current_step import CurrentStep
from nag.errors import UnsupportedPipeline
from nag.families.arguments import ARGUMENTS, PADDED, UNDECLARED, Argument, PaddedText
from nag.families.facts import FamilyFacts
from nag.guidance_state import GuidanceState
from nag.guided_step import GuidedStep
from nag.negative import NegativeEmbeds, pad_prompts
from nag.pipelines import Arguments, encode_prompts
from nag.processor_swap import original
from nag.processors import CrossAttentionProcessor, GuidedProcessor, JointAttentionProcessor
from nag.schedule import scheduler_of, training_timestep
from nag.step_hooks import StepHooks
from nag.token_layout import TokenLayout

__all__ = ["DENOISER_NAMES", "Family", "denoisers_of"]

#: The denoiser's argument for the image or video that it denoises; one of these.
IMAGES = ("hidden_states", "sample", "x")
#: Under which a pipeline has its denoisers.
DENOISER_NAMES = ("transformer", "transformer_2", "unet")


def denoisers_of(pipe: Any) -> list[nn.Module]:
    """Returns the denoisers of a pipeline."""
    modules = (getattr(pipe, name, None) for name in DENOISER_NAMES)
    return [denoiser for denoiser in modules if denoiser is not None]


class Family(FamilyFacts):
    """A family of models: what it does with a denoiser and its calls. A subclass overrides what differs.

    Attributes:
        reference: the authors' own layout, used by `guide(reference=True)`, if it differs from this one.

    """

    reference: ClassVar[Family | None] = None

    # What is entered.

    def class_distance(self, kind: type) -> int | None:
        """Counts the classes between `kind` and the nearest base of `denoiser_types`; None if it has no such base."""
        classes = [base.__name__ for base in kind.__mro__]
        return min((classes.index(name) for name in self.denoiser_types if name in classes), default=None)

    def fits(self, denoiser: Any) -> bool:  # noqa: ARG002 (for subclasses)
        """Whether a denoiser of these classes belongs to this family, if other families name the same classes."""
        return True

    def denoisers(self, pipe: Any) -> list[nn.Module]:
        """Returns the pipeline's denoisers of this family, which take turns if there are several."""
        return [
            denoiser for denoiser in denoisers_of(pipe) if self.class_distance(type(original(denoiser))) is not None
        ]

    def attentions(self, denoiser: Any) -> list[Any]:
        """Returns the attention modules that read the prompt; each of them has a `processor`."""
        patterns = [re.compile(re.escape(glob).replace(r"\*", "[^.]+")) for glob in self.attention_modules]
        named = ((name.replace("._orig_mod", ""), module) for name, module in denoiser.named_modules())
        return [module for name, module in named if any(pattern.fullmatch(name) for pattern in patterns)]

    def check_denoiser(self, denoiser: Any) -> None:  # noqa: ARG002 (families look at it)
        """Raises UnsupportedPipeline if guidance of this denoiser would not be exact."""
        if self.refused is not None:
            raise UnsupportedPipeline(f"{self.name} cannot be guided: {self.refused}")

    def find_split_error(self, denoiser: Any) -> str | None:  # noqa: ARG002 (families look at it)
        """Returns why diffusers splits the tokens of this denoiser wrongly; None if it does not."""
        return self.split_error

    def check(self, pipe: Any) -> None:
        """Raises UnsupportedPipeline if guidance of this pipeline would not be exact."""
        for denoiser in self.denoisers(pipe):
            self.check_denoiser(original(denoiser))

    def processor(self, current: CurrentStep, plain: Any) -> GuidedProcessor:
        """Returns the guiding processor for the processor `plain` of an attention module."""
        by_attention = {"joint": JointAttentionProcessor, "cross": CrossAttentionProcessor}
        return (self.processor_class or by_attention[self.attention])(current, plain)

    # What a prompt is.

    def encode(self, encode_prompt: Callable[..., Any], prompts: Sequence[str], arguments: Arguments) -> NegativeEmbeds:
        """Encodes negative prompts by the pipeline's own encode_prompt and its arguments for the positive."""
        arguments = arguments | dict(self.encode_arguments)
        if self.encodes_one_by_one:
            return pad_prompts([encode_prompts(encode_prompt, [prompt], arguments)[0][0] for prompt in prompts])
        encoded = encode_prompts(encode_prompt, prompts, arguments)
        return self.negative_embeds(
            dict(zip(self.encoded, encoded if isinstance(encoded, tuple) else (encoded,), strict=False))
        )

    def negative_embeds(self, encoded: Mapping[str, Any]) -> NegativeEmbeds:
        """Converts what a pipeline's encoders return for negative prompts to `NegativeEmbeds`.

        Args:
            encoded: by the names of `encoded`, if a pipeline is modular with all else that its text blocks make.

        """
        embeds = encoded["embeds"]
        if isinstance(embeds, list):  # one tensor per prompt
            return pad_prompts(embeds)
        return NegativeEmbeds(
            embeds, encoded.get("pooled"), encoded.get("mask") if self.negative_mask_arg is not None else None
        )

    def negative_of_arguments(self, arguments: Mapping[str, Any]) -> NegativeEmbeds:
        """Converts a guider's negative prompt, given by the denoiser's arguments with one row per row of the call.

        Raises:
            UnsupportedPipeline: it is not among them.

        """
        encoded = {self.prompt_arguments.get(name, name): value for name, value in arguments.items()}
        if all(encoded.get(name) is None for name in self.prompt_arguments.values()):
            raise UnsupportedPipeline(f"the loop hands its guider no negative prompt, but {', '.join(arguments)}")
        return self.negative_embeds(encoded)

    def watch_conditions(self, pipe: Any, state: GuidanceState, stack: ExitStack) -> None:
        """Registers hooks that complete the negative prompt when the pipeline completes its own."""

    # What a step is.

    def embeds(self, call: dict[str, Any]) -> Tensor:
        """Returns the prompt's tokens in a denoiser call, (B, L, C)."""
        embeds: Tensor = call[self.text_argument]
        return embeds

    def rows(self, pipe: Any, state: GuidanceState, call: dict[str, Any]) -> slice | None:
        """Returns the conditional rows of a denoiser call, or None. call: its arguments by name."""
        embeds = self.embeds(call)
        count = len(embeds)
        separate = self.cfg == "separate" or state.is_call_conditional is not None
        if separate and not state.is_conditional(embeds, call[self.timestep_argument]):
            return None
        rows = (
            slice(0, count)
            if separate or not state.inside_pipeline_call
            else self._conditional_rows(pipe, state, count)
        )
        if not self.tells_copies and state.inside_pipeline_call and state.pipeline_call is not None:
            state.pipeline_call.images_per_prompt = (rows.stop - rows.start) // state.pipeline_call.prompts
        return rows

    @staticmethod
    def _conditional_rows(pipe: Any, state: GuidanceState, count: int) -> slice:
        """Returns the prompts' own rows of a call in which CFG's unconditional rows may come first."""
        told = state.pipeline_call is not None and state.pipeline_call.in_cfg
        in_cfg = bool(getattr(pipe, "do_classifier_free_guidance", told))
        # Perturbed attention guidance adds a third part, which is the prompt's rows once more and stays plain.
        perturbed = bool(getattr(pipe, "do_perturbed_attention_guidance", False))
        part = count // (1 + in_cfg + perturbed)
        return slice(part * in_cfg, count - part * perturbed)

    def frames(self, call: dict[str, Any]) -> int:  # noqa: ARG002 (for subclasses)
        """Returns how many rows of the text one image or video has: its frames, if each of them is a row."""
        return 1

    def timestep(self, pipe: Any, call: dict[str, Any]) -> float:
        """Returns the timestep of a call on the scale of training, 1000 at pure noise."""
        return training_timestep(scheduler_of(pipe), self.scheduler_timestep(pipe, call))

    def scheduler_timestep(self, pipe: Any, call: dict[str, Any]) -> float:
        """Returns the timestep of a call in the scheduler's unit.

        It is the pipeline's own if that is known, since the denoiser's copy may be rounded to half precision.
        """
        current = current_timestep(pipe)
        if current is not None:
            return float(current)
        # Some video models have one per token, which is zero in frames that are given.
        timestep = call[self.timestep_argument]
        now = self.timestep_unit * float(timestep.max() if isinstance(timestep, Tensor) else timestep)
        # In single precision the difference is a little off.
        return round(1000 - now, 3) if self.timestep_rises else now

    def layout(self, call: dict[str, Any], negative: NegativeEmbeds) -> TokenLayout:
        """Returns where both prompts' tokens are in an attention's sequence. negative: one row per row of the call."""
        return TokenLayout(self.embeds(call).shape[1], negative.embeds.shape[1], text_last=self.text_last)

    def image_tokens(self, call: dict[str, Any]) -> int:
        """Counts the tokens in joint attention that are not the text's."""
        return int(call["hidden_states"].shape[1])

    def pack(self, call: dict[str, Any], negative: NegativeEmbeds) -> dict[str, Any]:
        """Returns the call with the negative's tokens after the positive's. negative: one row per row of the call."""
        if not self.is_packed:
            return call
        embeds = call[self.text_argument]
        packed = call | {self.text_argument: torch.cat([embeds, negative.embeds], dim=1)}
        if self.denoiser_mask_arg is not None:
            mask = call.get(self.denoiser_mask_arg)
            if mask is not None or negative.mask is not None:
                mask = mask if mask is not None else embeds.new_ones(embeds.shape[:2])
                extra = negative.mask if negative.mask is not None else embeds.new_ones(negative.embeds.shape[:2])
                packed[self.denoiser_mask_arg] = torch.cat([mask, extra.to(mask.dtype)], dim=1)
        return packed

    def hooks(self, denoiser: Any, hooks: StepHooks) -> None:
        """Registers what else the family needs, such as positions of the negative's tokens."""

    def adapt_step(self, step: GuidedStep | None, call: dict[str, Any]) -> GuidedStep | None:  # noqa: ARG002 (for subclasses)
        """Returns the step as this family's attention modules need it; may change the call."""
        return step

    # How calls join.

    def row_count(self, call: Mapping[str, Any]) -> int:
        """Counts the rows of a denoiser call: its images or videos, counted again for CFG."""
        return len(next(call[name] for name in IMAGES if name in call))

    def argument(self, name: Any, default: Argument) -> Argument:
        """Returns the kind of the argument `name`; `default` if neither the family nor `ARGUMENTS` names it."""
        if name in self.arguments:
            return self.arguments[name]
        if self.denoiser_mask_arg is not None and name in ("encoder_hidden_states", self.denoiser_mask_arg):
            return PADDED
        return ARGUMENTS.get(name, default)

    @property
    def pads_text(self) -> bool:
        """Whether calls join whose texts are of different length."""
        kinds = (*self.arguments.values(), self.argument("encoder_hidden_states", UNDECLARED))
        return any(isinstance(kind, PaddedText) for kind in kinds)

    def with_masks(self, calls: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
        """Returns the calls, all with a mask of their text if one has a mask or a shorter text than another."""
        name = self.denoiser_mask_arg
        if name is None or self.argument(name, UNDECLARED) is not PADDED:
            return [dict(call) for call in calls]
        texts = [self.embeds(dict(call)) for call in calls]
        masks = [call.get(name) for call in calls]
        if all(mask is None for mask in masks) and len({text.shape[1] for text in texts}) == 1:
            return [dict(call) for call in calls]
        return [
            {**call, name: mask if mask is not None else text.new_ones(text.shape[:2], dtype=torch.bool)}
            for call, text, mask in zip(calls, texts, masks, strict=True)
        ]

    @property
    def has_mask(self) -> bool:
        """Whether negative prompts of unequal length may share a call, padded under a mask."""
        return self.negative_mask_arg is not None
