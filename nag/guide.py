"""`guide`: Normalized Attention Guidance of a pipeline within a `with` block."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

from diffusers.modular_pipelines import ModularPipeline
from torch import Tensor

from nag.attachment import Attachment, attach_family
from nag.errors import InvalidParameter, UnsupportedPipeline
from nag.families import Family, family_of, family_of_denoiser, registered_families
from nag.families.markdown_table import FamilyTable
from nag.guidance_state import Guidance, GuidanceState
from nag.modular import watch_blocks
from nag.negative import NegativeEmbeds
from nag.params import NAGParams, params_by_prompt, resolve_alias
from nag.pipeline_hooks import plan_pipeline, watch_encode_prompt, watch_pipeline_call
from nag.processor_swap import original
from nag.schedule import scheduler_of, timesteps_total

__all__ = ["attach", "defaults_for", "families", "guide", "supports"]


@contextmanager
def guide(
    pipe: Any,
    negative_prompt: str | Sequence[str] | None = None,
    *,
    negative_prompt_embeds: Tensor | None = None,
    negative_pooled_prompt_embeds: Tensor | None = None,
    negative_prompt_attention_mask: Tensor | None = None,
    negative_prompt_embeds_mask: Tensor | None = None,
    scale: float | Sequence[float] | None = None,
    tau: float | Sequence[float] | None = None,
    alpha: float | Sequence[float] | None = None,
    end: float | Sequence[float] | None = None,
    scale_decay: float | Sequence[float] | None = None,
    anneal: float | Sequence[float] | None = None,
    start: float | Sequence[float] | None = None,
    method: str | Sequence[str] | None = None,
    blocks: Collection[int] | None = None,
    reference: bool = False,
    **more: Any,
) -> Iterator[Guidance]:
    """Guides every call of `pipe` inside the block away from the negative prompt.

    Args:
        pipe: a diffusers pipeline of a supported family (`supports(pipe)`).
        negative_prompt: one string, or one per prompt; encoded when and as the pipeline encodes its own prompt.
        negative_prompt_embeds: instead of strings, (N, L, C) as `pipe.encode_prompt` returns them; N is 1 or one
            per prompt.
        negative_pooled_prompt_embeds: (N, P); read by `reference=True` alone.
        negative_prompt_attention_mask: (N, L), with the embeddings, in families that mask their text;
        negative_prompt_embeds_mask: the same if the pipelines call it so (`Family.negative_mask_arg`).
        scale: s ≥ 1; the paper's φ is s − 1. 1 is no guidance.
        tau: τ ≥ 1, the largest growth of a token's L1 norm.
        alpha: α in [0, 1], the share of the guided output.
        end: θ in [0, 1]; guidance runs while the timestep t ≥ (1 − θ)·T. 0 is never.
        scale_decay: in [0, 1], the share of φ that is lost from start to end, in a straight line over t. 0 is the
            paper's.
        anneal: deprecated name of `scale_decay`.
        start: in [0, 1), below `end`; guidance runs while the timestep t ≤ (1 − start)·T. 0 is from the first step on.
        method: "nag", "orthogonal" or "vsf" (`NAGParams.method`).
        blocks: places of the attention modules that guide, counted from 0 as `named_modules()` has them (`range(19)` is
            Flux.1's double blocks); None is all. In the others the image attends to the positive prompt alone; the
            negative prompt's tokens go through them as ever, since later ones may need them.
        reference: Flux.1 only: the authors' layout (negative pooled prompt, second image copy in single blocks).
        more: what a family reads beside the embeddings, all with them or none, where only masks may be left out
            (`Family.extra_negative_inputs`), or beside the text (`Family.extra_negative_prompts`): LTX-2 takes
            `negative_audio_prompt`, a string or one per prompt, which guides the sound in place of `negative_prompt`.

    Each number and the method may be one for all prompts or a sequence, one per prompt; what is not given is the
    family's default.

    Between denoiser calls the model is as it was found: adapters may be loaded, scaled and unloaded inside the block.
    Where the negative's keys are kept for a whole call, weights that change within it are noticed, except those written
    through `parameter.data`, which torch counts as no change.

    A denoiser that `enable_parallelism` of diffusers has split over processes is guided as on one device, if each of
    them makes the same call; models for which that is not exact are refused.

    Yields:
        What is in force, and after a call what was done (`guided_steps`).

    Raises:
        UnsupportedPipeline: no family fits, or something loaded into the pipeline would lose its effect.
        InvalidParameter: a value out of range, or not as many values as prompts (found when the pipeline is called).

    """
    family = family_of(pipe)
    if (negative_prompt is None) == (negative_prompt_embeds is None):
        raise InvalidParameter("negative_prompt", "give either the text or negative_prompt_embeds")
    encodes = isinstance(pipe, ModularPipeline) or any(hasattr(pipe, name) for name in family.encoders)
    if family.refused is None and not encodes:
        raise UnsupportedPipeline(f"{type(pipe).__name__} has no {' or '.join(family.encoders)}")
    masks = {
        "negative_prompt_attention_mask": negative_prompt_attention_mask,
        "negative_prompt_embeds_mask": negative_prompt_embeds_mask,
    }
    extra_prompts = {
        name: _as_prompts(texts, name)
        for name in family.extra_negative_prompts
        if (texts := more.pop(name, None)) is not None
    }
    for name in extra_prompts if negative_prompt is None else ():
        raise InvalidParameter(name, "needs negative_prompt beside it")
    given = _negative_of(family, negative_prompt_embeds, negative_pooled_prompt_embeds, masks, more)
    decay = resolve_alias("scale_decay", scale_decay, "anneal", anneal)
    numbers = {"scale": scale, "tau": tau, "alpha": alpha, "end": end, "scale_decay": decay, "start": start}
    params = params_by_prompt(family.defaults, **numbers, method=method)
    state = GuidanceState(
        params=params,
        negative_prompts=None if negative_prompt is None else _as_prompts(negative_prompt, "negative_prompt"),
        negative_embeds=given,
        extra_negative_prompts=extra_prompts,
        timesteps_total=timesteps_total(scheduler_of(pipe)),
        guidance=Guidance(params),
    )
    if reference and family.reference is None:
        raise InvalidParameter("reference", f"{family.name} has one form only; leave it out")
    if reference and (blocks is not None or any(prompt.method != "nag" for prompt in params)):
        raise InvalidParameter("reference", "the authors' layout has neither blocks nor another method; leave them out")
    layout = family.reference if reference and family.reference is not None else family
    family.check(pipe)
    with ExitStack() as stack:
        attachments = [stack.enter_context(attach_family(denoiser, layout)) for denoiser in family.denoisers(pipe)]
        if any(attachment.is_planned for attachment in attachments):
            raise InvalidParameter("pipe", "its denoiser is guided already; leave the other guide first")
        places = [attachment.places_of(blocks) for attachment in attachments]

        @contextmanager
        def apply_plans() -> Iterator[None]:
            with ExitStack() as plans:
                for attachment, guiding in zip(attachments, places, strict=True):
                    plan = plan_pipeline(pipe, family, state, attachment.denoiser)
                    plans.enter_context(attachment.apply_plan(plan, guiding))
                yield

        stack.enter_context(apply_plans())
        contexts = [apply_plans]
        if isinstance(pipe, ModularPipeline):
            contexts.append(lambda: watch_blocks(pipe, family, state))
        else:
            watch_encode_prompt(pipe, family, state, stack)
        watch_pipeline_call(pipe, state, contexts, stack)
        yield state.guidance


@contextmanager
def attach(denoiser: Any) -> Iterator[Attachment]:
    """Prepares a denoiser for calls whose rows are guided one by one, as `Attachment.rows` states them.

    By itself it guides nothing, and calls of other threads, greenlets and tasks stay plain.

    Args:
        denoiser: the transformer or UNet of a supported family.

    Yields:
        What states the rows of the calls to come.

    Raises:
        UnsupportedPipeline: no family fits, or something set up on the denoiser does not compose with guidance.
        InvalidParameter: the denoiser is guided in another layout (`reference=True`).

    """
    family = family_of_denoiser(denoiser)
    family.check_denoiser(original(denoiser))
    with attach_family(denoiser, family) as attachment:
        yield attachment


def families() -> FamilyTable:
    """Returns every family of models, with its layout and defaults; `print(nag.families())` shows a table."""
    return FamilyTable(registered_families())


def supports(pipe: Any) -> bool:
    """Whether `guide` takes this pipeline as it stands."""
    try:
        family_of(pipe).check(pipe)
    except UnsupportedPipeline:
        return False
    return True


def defaults_for(pipe: Any) -> NAGParams:
    """Returns the numbers that `guide` uses if none are given.

    Raises:
        UnsupportedPipeline: no family fits.

    """
    return family_of(pipe).defaults


def _negative_of(
    family: Family,
    embeds: Tensor | None,
    pooled: Tensor | None,
    masks: dict[str, Tensor | None],
    more: dict[str, Tensor],
) -> NegativeEmbeds | None:
    for name in more.keys() - family.extra_negative_inputs.keys():
        raise TypeError(f"guide() got an unexpected keyword argument {name!r}")
    for name in family.extra_negative_inputs.keys() - more.keys() if embeds is not None else more.keys():
        if embeds is None or not name.endswith("mask"):
            raise InvalidParameter(name, f"{family.name} takes it and negative_prompt_embeds together")
    mask = masks.pop(family.negative_mask_arg, None) if family.negative_mask_arg else None
    for name, value in {
        **masks,
        **({"negative_pooled_prompt_embeds": pooled, "mask": mask} if embeds is None else {}),
    }.items():
        if value is not None:
            why = (
                f"{family.name} takes no such mask" if embeds is not None else "needs negative_prompt_embeds beside it"
            )
            raise InvalidParameter(name, why)
    if embeds is None:
        return None
    negative = NegativeEmbeds(
        embeds, pooled, mask, {family.extra_negative_inputs[name]: value for name, value in more.items()}
    )
    negative.check("negative_prompt_embeds")
    return negative


def _as_prompts(texts: str | Sequence[str], name: str) -> tuple[str, ...]:
    prompts = (texts,) if isinstance(texts, str) else tuple(texts)
    if not prompts or not all(isinstance(prompt, str) for prompt in prompts):
        raise InvalidParameter(name, "must be a string or a sequence of strings, one per prompt")
    return prompts
