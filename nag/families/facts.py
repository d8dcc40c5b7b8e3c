"""The facts that a family of models is declared by."""

from __future__ import annotations

import re
import warnings
from collections.abc import Mapping
from typing import Any, ClassVar, Literal

from nag.families.arguments import Argument
from nag.params import NAGParams
from nag.processors import GuidedProcessor

__all__ = ["FamilyFacts"]


class FamilyFacts:
    """The facts of a family, which each states as class attributes.

    Attributes:
        name: as `nag.families()` prints it.
        models: what belongs to it, for the table.
        defaults: the numbers used if the caller gives none, and
        source: where they come from; Flux.1's, where a family has none of its own.
        attention: whether text and image share one attention, or the image attends across to the text.
        denoiser_types: names of the denoiser's classes in diffusers; subclasses count.
        attention_modules: names of the denoiser's attention modules that meet the prompt; `*` stands for one part of a
            name.
        processor_class: the guiding processor; absent, the plain one for `attention`.
        processors: names of the attention processors that guidance enters as they are.
        denoiser_mask_arg: the denoiser's argument for the text mask, if it has one.
        negative_mask_arg: the name of that mask for the negative prompt in the family's pipelines and `nag.guide`.
        extra_negative_inputs: what `nag.guide` takes of a negative prompt after its embeddings and mask, and the
            denoiser's argument that each stands for (`NegativeEmbeds.extra`).
        extra_negative_prompts: what `nag.guide` takes as texts after the negative prompt, one or one per prompt;
            `encode` gets them by these names.
        text_argument: the denoiser's argument for the prompt's tokens.
        is_packed: whether the negative's tokens join that argument; if not, hooks of the family append them.
        text_last: whether the text stands behind the image in joint attention.
        timestep_argument: the denoiser's argument for the timestep,
        timestep_unit: how many of the scheduler's are one of it, and
        timestep_rises: whether it rises from noise at 0, when the scheduler's falls from 1000.
        caches_text_kv: cross attention whose text keys are the same at every step: they are computed once a prompt.
        arguments: how the denoiser's arguments join in `nag.join`, where `ARGUMENTS` says otherwise.
        cannot_join: why no calls of this denoiser can share a forward, if they cannot; and
        join_note: which calls do, for the table, if not all.
        unordered_layers: matches the names of layers whose input does not have the call's rows as its first dimension,
            though it may have as many: tokens come first, or a router picks them from all rows.
        cfg: how the family's pipelines run CFG: the unconditional rows first in one batch, or as a call of their own.
        cfg_off: the greatest guidance scale at which they run no CFG: 0, if they count the scale from the prompt's own
            prediction.
        tells_copies: whether they tell `encode_prompt` how many images of a prompt they make.
        notes: which form of the method it is, if there are several: by which pooled prompt the tokens are modulated.
        compiled: what `torch.compile` makes of a guided step. In parts means that it does so of a plain one too.
        encoders: names of the pipelines' methods that encode a prompt, whichever they call, and
        encoded: names of what these return, in order: "embeds", "pooled", "mask" or more that `negative_embeds` reads;
            "" stands for a value that is not read.
        encode_arguments: arguments of these methods that are others for a negative prompt than for the positive.
        encodes_one_by_one: whether negative prompts are encoded one at a time, where in a batch each would read as many
            paddings as the longest has tokens more.
        prompt_arguments: arguments by which a loop hands its guider a prompt, and the names of `encoded` for them.
        context_parallel: names of denoiser classes that are guided exactly if context parallelism splits their tokens.
            In joint attention a rank has a part of the text ahead of a part of the image, in cross attention all text.
        is_split_as_one: whether it splits text and image as one sequence instead.
        split_error: why diffusers splits the tokens of these denoisers wrongly, without guidance too.
        refused: why these models are not guided, if they are not; `check_denoiser` raises it.

    """

    name: ClassVar[str]
    models: ClassVar[str]
    defaults: ClassVar[NAGParams] = NAGParams(scale=5.0, tau=2.5, alpha=0.25)
    source: ClassVar[str] = "as Flux.1, not tuned"
    attention: ClassVar[Literal["joint", "cross"]]
    denoiser_types: ClassVar[tuple[str, ...]]
    attention_modules: ClassVar[tuple[str, ...]] = ()
    processor_class: ClassVar[type[GuidedProcessor] | None] = None
    processors: ClassVar[tuple[str, ...]]
    denoiser_mask_arg: ClassVar[str | None] = None
    negative_mask_arg: ClassVar[str | None] = None
    extra_negative_inputs: ClassVar[dict[str, str]] = {}
    extra_negative_prompts: ClassVar[tuple[str, ...]] = ()
    text_argument: ClassVar[str] = "encoder_hidden_states"
    is_packed: ClassVar[bool] = True
    text_last: ClassVar[bool] = False
    timestep_argument: ClassVar[str] = "timestep"
    timestep_unit: ClassVar[float] = 1.0
    timestep_rises: ClassVar[bool] = False
    caches_text_kv: ClassVar[bool] = False
    arguments: ClassVar[Mapping[str, Argument]] = {}
    cannot_join: ClassVar[str | None] = None
    join_note: ClassVar[str | None] = None
    unordered_layers: ClassVar[re.Pattern[str] | None] = None
    cfg: ClassVar[Literal["batched", "separate"]]
    cfg_off: ClassVar[float] = 1.0
    tells_copies: ClassVar[bool] = True
    notes: ClassVar[str | None] = None
    encoders: ClassVar[tuple[str, ...]] = ("encode_prompt",)
    encoded: ClassVar[tuple[str, ...]] = ("embeds", "mask")
    encode_arguments: ClassVar[Mapping[str, Any]] = {}
    encodes_one_by_one: ClassVar[bool] = False
    prompt_arguments: ClassVar[dict[str, str]] = {
        "encoder_hidden_states": "embeds",
        "encoder_hidden_states_mask": "mask",
        "encoder_attention_mask": "mask",
    }
    context_parallel: ClassVar[tuple[str, ...]] = ()
    is_split_as_one: ClassVar[bool] = False
    split_error: ClassVar[str | None] = None
    compiled: ClassVar[Literal["one graph", "in parts"]] = "one graph"
    refused: ClassVar[str | None] = None

    def __init_subclass__(cls) -> None:
        """Takes `exact`, the deprecated name of `notes`, as well."""
        if "exact" in vars(cls):
            warnings.warn("Family.exact is deprecated; use notes", DeprecationWarning, stacklevel=2)
            cls.notes = vars(cls)["exact"]
            del cls.exact

    @property
    def exact(self) -> str:
        """The deprecated name of `notes`; "yes" if there are none."""
        warnings.warn("Family.exact is deprecated; use notes", DeprecationWarning, stacklevel=2)
        return self.notes or "yes"
