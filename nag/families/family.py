"""What a model family is, and how a pipeline of any family is entered."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import replace
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor, nn

from nag.errors import InvalidParameter, UnsupportedPipeline
from nag.families.composing import forget_cached_blocks, refuse_what_does_not_compose, state_of
from nag.families.entering import encode_alone, on_denoiser
from nag.families.swapping import Processors, class_names, original
from nag.packing import Packing
from nag.params import NAGParams
from nag.processors import CrossAttentionProcessor, GuidedProcessor, JointAttentionProcessor
from nag.session import Negative, Session, Step

__all__ = ["Family"]


class Family:
    """One family of models. A subclass states its facts as class attributes and overrides what differs.

    Attributes:
        name: as `nag.families()` prints it.
        models: what belongs to it, for the table.
        defaults: the numbers used where the caller gives none, and
        source: where they come from.
        attention: whether text and image share one attention, or the image attends across to the text.
        denoiser_types: names of the denoiser's classes in diffusers; subclasses count.
        processors: names of the attention processors that guidance enters as they are.
        mask_argument: the denoiser's argument for the text mask, where it has one.
        mask_name: the name of that mask for the negative prompt, as the family's pipelines and `nag.guide` take it.
        also_given: what `nag.guide` takes of a negative prompt beside its embeddings and mask, and the denoiser's
            argument that each stands for (`Negative.more`).
        text_last: whether the text stands behind the image in joint attention.
        timestep_argument: the denoiser's argument for the timestep,
        timestep_unit: how many of the scheduler's are one of it, and
        timestep_rises: whether it rises from noise at 0, where the scheduler's falls from 1000.
        keys_stay: cross attention whose text keys are the same at every step: they are computed once a prompt.
        cfg: how the family's pipelines run CFG: the unconditional rows first in one batch, or as a call of their own.
        exact: what the table says of it, where the method leaves a choice: which pooled prompt modulates the tokens.
        compiled: what `torch.compile` makes of a guided step. In parts means that it does so of a plain one too.
        encoders: names of the pipelines' methods that encode a prompt, whichever they call.
        refused: why these models are not guided, where they are not; `check` raises it.
        has_reference: whether `reference=True` means something else than the plain form.

    """

    name: ClassVar[str]
    models: ClassVar[str]
    defaults: ClassVar[NAGParams]
    source: ClassVar[str]
    attention: ClassVar[Literal["joint", "cross"]]
    denoiser_types: ClassVar[tuple[str, ...]]
    processors: ClassVar[tuple[str, ...]]
    mask_argument: ClassVar[str | None] = None
    mask_name: ClassVar[str | None] = None
    also_given: ClassVar[dict[str, str]] = {}
    text_last: ClassVar[bool] = False
    timestep_argument: ClassVar[str] = "timestep"
    timestep_unit: ClassVar[float] = 1.0
    timestep_rises: ClassVar[bool] = False
    keys_stay: ClassVar[bool] = False
    cfg: ClassVar[Literal["batched", "separate"]]
    exact: ClassVar[str] = "yes"
    encoders: ClassVar[tuple[str, ...]] = ("encode_prompt",)
    compiled: ClassVar[Literal["one graph", "in parts"]] = "one graph"
    refused: ClassVar[str | None] = None
    has_reference: ClassVar[bool] = False

    # What is entered.

    def matches(self, pipe: Any) -> bool:
        """Whether a pipeline belongs here."""
        return bool(self.denoisers(pipe))

    def denoisers(self, pipe: Any) -> list[nn.Module]:
        """The modules that the pipeline calls at each step, one or several in turn."""
        found = (getattr(pipe, name, None) for name in ("transformer", "transformer_2", "unet"))
        return [each for each in found if each is not None and class_names(each) & set(self.denoiser_types)]

    def attentions(self, denoiser: Any) -> list[Any]:
        """The attention modules that meet the prompt, each with a `processor`."""
        raise NotImplementedError

    def check(self, pipe: Any) -> None:  # noqa: ARG002 (families look at it)
        """Raises UnsupportedPipeline where guidance would not be exact."""
        if self.refused is not None:
            raise UnsupportedPipeline(f"{self.name} cannot be guided: {self.refused}")

    def processor(self, session: Session, plain: Any) -> GuidedProcessor:
        """The guiding processor that takes the place of `plain`."""
        kind = JointAttentionProcessor if self.attention == "joint" else CrossAttentionProcessor
        return kind(session, plain)

    # What a prompt is.

    def encode(self, encode_prompt: Callable[..., Any], prompts: Sequence[str], arguments: dict[str, Any]) -> Negative:
        """Negative prompts to embeddings, by the pipeline's own encode_prompt and its arguments for the positive.

        Where the family masks its text, the mask comes second.
        """
        encoded = encode_alone(encode_prompt, prompts, arguments)
        return Negative(encoded[0], mask=encoded[1] if self.mask_name is not None else None)

    # What a step is.

    def embeds(self, call: dict[str, Any]) -> Tensor:
        """The prompt's tokens in a denoiser call, (B, L, C)."""
        embeds: Tensor = call["encoder_hidden_states"]
        return embeds

    def rows(self, pipe: Any, session: Session, call: dict[str, Any]) -> slice | None:
        """The conditional rows of a denoiser call; None where it has none. call: its arguments by name."""
        embeds = self.embeds(call)
        count = len(embeds)
        if self.cfg == "separate":
            return slice(0, count) if session.conditional(embeds, call["timestep"]) else None
        if not session.in_call:
            return slice(0, count)
        told = session.run is not None and session.run.in_cfg
        in_cfg = bool(getattr(pipe, "do_classifier_free_guidance", told))
        # Perturbed attention guidance adds a third part, which is the prompt's rows once more and stays plain.
        perturbed = bool(getattr(pipe, "do_perturbed_attention_guidance", False))
        part = count // (1 + in_cfg + perturbed)
        return slice(part * in_cfg, count - part * perturbed)

    def frames(self, call: dict[str, Any]) -> int:  # noqa: ARG002 (for subclasses)
        """Rows that one picture has: its frames, where each of them is a row to the attention."""
        return 1

    def timestep(self, pipe: Any, call: dict[str, Any]) -> float:
        """The step's timestep on the scheduler's scale: the pipeline's own where it tells it, for the denoiser's copy
        may have been rounded to half precision."""
        told = getattr(pipe, "_current_timestep", None)
        if told is not None:
            return float(told)
        # One a token in some video models, zero at those of a frame that is given.
        timestep = call[self.timestep_argument]
        now = self.timestep_unit * float(timestep.max() if isinstance(timestep, Tensor) else timestep)
        # In single precision the difference is a little off.
        return round(1000 - now, 3) if self.timestep_rises else now

    def packing(self, call: dict[str, Any], negative: Negative) -> Packing:
        """Where both prompts' tokens will stand in an attention's sequence. negative: a row for each of the call's."""
        return Packing(self.embeds(call).shape[1], negative.embeds.shape[1], text_last=self.text_last)

    def pack(self, call: dict[str, Any], negative: Negative) -> dict[str, Any]:
        """The call with the negative's tokens behind the positive's. negative: a row for each of the call's."""
        embeds = call["encoder_hidden_states"]
        packed = call | {"encoder_hidden_states": torch.cat([embeds, negative.embeds], dim=1)}
        if self.mask_argument is not None:
            mask = call.get(self.mask_argument)
            if mask is not None or negative.mask is not None:
                mask = mask if mask is not None else embeds.new_ones(embeds.shape[:2])
                extra = negative.mask if negative.mask is not None else embeds.new_ones(negative.embeds.shape[:2])
                packed[self.mask_argument] = torch.cat([mask, extra.to(mask.dtype)], dim=1)
        return packed

    def hooks(self, denoiser: Any, session: Session, stack: ExitStack) -> None:
        """Registers what else the family needs, such as positions of the negative's tokens, on the stack."""

    # How it is entered; the same for all.

    def enter(self, pipe: Any, session: Session, stack: ExitStack, reference: bool) -> None:
        """Puts hooks and processors in place and registers their removal on the stack.

        Raises:
            UnsupportedPipeline: something in the pipeline does not compose with guidance.
            InvalidParameter: the pipeline is guided already.

        """
        if reference:
            raise InvalidParameter("reference", f"{self.name} has one form only; leave it out")
        self.check(pipe)
        for denoiser in self.denoisers(pipe):
            refuse_what_does_not_compose(denoiser)
            processors = Processors(
                self.attentions(original(denoiser)), lambda plain: self.processor(session, plain), self.processors
            )
            self.hooks(original(denoiser), session, stack)
            on_denoiser(denoiser, session, stack, processors, self._before(pipe, denoiser, session, processors))

    def step(self, pipe: Any, session: Session, call: dict[str, Any]) -> Step | None:
        """What the processors need in this denoiser call; None where nothing is guided."""
        rows = self.rows(pipe, session, call)
        if rows is None:
            return None
        return session.plan(self.embeds(call), rows, lambda: self.timestep(pipe, call), self.frames(call))

    def _before(
        self, pipe: Any, denoiser: nn.Module, session: Session, processors: Processors
    ) -> Callable[[dict[str, Any]], dict[str, Any]]:
        def before(call: dict[str, Any]) -> dict[str, Any]:
            guided_before = session.run.guided if session.run is not None else None
            step = self.step(pipe, session, call)
            if guided_before is not None and session.run is not None and session.run.guided is not guided_before:
                forget_cached_blocks(original(denoiser))
            if step is None:
                return call
            # Once more, for what was set up since the guide was entered.
            refuse_what_does_not_compose(denoiser)
            renewed = processors.renew()
            negative = step.negative.filled(step.rows, len(self.embeds(call)))
            run, packing = session.run, self.packing(call, negative)
            if self.keys_stay:
                assert run is not None
                state = state_of(original(denoiser))
                if run.kept_for.get(id(denoiser)) == state and not renewed:
                    session.step = replace(step, text_keys=packing.positive)
                    return call
                run.kept_for[id(denoiser)] = state
            session.step = replace(step, packing=packing, text_keys=packing.text)
            return self.pack(call, negative)

        return before
