"""Guidance of single denoiser calls: hooks and processors on one denoiser, which guide nothing by themselves.

What a call is guided by is decided by a plan of the calling context (thread, greenlet or task): by the rows that
`Attachment.rows` states, or by a pipeline that `nag.guide` watches. A call without a plan is plain.

The life of a guided call:

1. `nag.guide` finds the family of the pipeline (`family_of`), attaches each of its denoisers (`attach_family`) and
   makes a plan for it (`plan_pipeline`).
2. The pipeline encodes its prompt; the negative prompt is encoded by the same method (`watch_encode_prompt`,
   `Family.encode`).
3. The pipeline calls the denoiser. `Attachment._enter` asks the plan whether the call is for the prompt
   (`is_conditional_context`), which rows are conditional (`Family.rows`) and what guides them at this timestep
   (`GuidanceState.plan_rows`): a `RowGuidance` for each row, which make a `GuidedStep`, or None for a plain call.
4. The guiding processors are put in place (`ProcessorSwapper.install`). The negative prompt's tokens join the call
   (`Family.layout`, `Family.pack`), or hooks on parts of the denoiser append them (`Family.hooks`, `StepHooks`).
5. In each attention module the original processor runs on the tokens of both prompts (`GuidedProcessor.run`). Its
   attention call is intercepted (`Interception`) and computed for both prompts (`GuidedProcessor.guided_attention`).
6. `guide_heads` guides the rows by their method: equations 7 to 10 (`normalized_attention_guidance`), or another rule
   of `nag.formula`.
7. `Attachment._leave` ends the step, and the original processors are back (`ProcessorSwapper.restore`).
"""

from __future__ import annotations

import functools
import inspect
import threading
from collections.abc import Callable, Collection, Hashable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from contextvars import ContextVar
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from torch import nn

from nag._diffusers import head_group, token_groups
from nag.cache_context import watch_cache_context
from nag.compat import check_compatible, is_compiled, weights_fingerprint
from nag.current_step import CurrentStep
from nag.errors import InvalidParameter
from nag.guided_step import GuidedStep, RowGuidance, make_step
from nag.processor_swap import ProcessorSwapper, original
from nag.step_hooks import StepHooks
from nag.text_keys import TextKeyCache
from nag.token_layout import TokenLayout
from nag.token_split import TokenSplit, split_tokens, sum_over

if TYPE_CHECKING:
    from nag.families import Family

__all__ = ["Attachment", "attach_family"]

#: Decides what guides the rows of a denoiser call, given by its named arguments; None if nothing guides any.
Plan = Callable[[dict[str, Any]], "Sequence[RowGuidance | None] | None"]

#: The plans of the calling context, with the places of the attention modules that guide.
_PLANS: ContextVar[tuple[tuple[Attachment, Plan, frozenset[int] | None], ...]] = ContextVar("nag_plans", default=())
#: The attribute of a denoiser that holds its attachment.
_ATTRIBUTE = "_nag_attachment"
_attaching = threading.RLock()


class Attachment:
    """The hooks and guiding processors on one denoiser. Made by `nag.attach`, and shared by all that guide it.

    Attributes:
        denoiser: without the wrapper of `torch.compile`.
        family: for `nag.join` and `nag.joining_key`.

    """

    def __init__(self, denoiser: nn.Module, family: Family) -> None:
        self.denoiser = original(denoiser)
        self.family = family
        self.current = CurrentStep(is_traced=is_compiled(denoiser))
        self.users = 0
        self._text_keys = TextKeyCache()
        self._last_step: tuple[Hashable, GuidedStep | None] | None = None  # the same rows make the same step
        # Of the class: a tracer may have replaced the instance's `forward` by one that names no arguments.
        self._signature = inspect.signature(type(self.denoiser).forward)
        self._stack = ExitStack()
        with ExitStack() as stack:  # undone if a part of it fails
            check_compatible(self.denoiser, family, is_compiled=self.current.is_traced)
            self._swapper = ProcessorSwapper(family.attentions(self.denoiser), self._wrap, family.processors)
            family.hooks(self.denoiser, StepHooks(self.current, stack))
            watch_cache_context(self.denoiser, stack)
            self._register(denoiser, stack)
            self._stack = stack.pop_all()

    @contextmanager
    def rows(self, rows: Sequence[RowGuidance | None], *, blocks: Collection[int] | None = None) -> Iterator[None]:
        """Guides the calls of this denoiser that the calling context makes inside the block.

        Args:
            rows: one entry for each row of the call (for each image or video); None for a plain row.
            blocks: as `nag.guide` takes them.

        Raises:
            InvalidParameter: blocks that the denoiser does not have.

        Raises, when the denoiser is called:
            InvalidParameter: another number of rows, or negative prompts of unequal length in a family without a mask.

        """
        with self.apply_plan(lambda call: rows, self.places_of(blocks)):  # noqa: ARG005 (a plan's signature)
            yield

    def bind(self, args: Sequence[Any], kwargs: Mapping[str, Any]) -> dict[str, Any]:
        """Returns the arguments of a denoiser call by name."""
        arguments = dict(self._signature.bind(self.denoiser, *args, **kwargs).arguments)
        del arguments["self"]
        return arguments

    def planned_rows(self, call: dict[str, Any]) -> Sequence[RowGuidance | None]:
        """Returns what the calling context's plan guides a denoiser call by: an entry for each row, None if plain.

        Whoever makes the call elsewhere, joined with others, states these rows there by `rows`. The plan counts the
        call as made.

        Args:
            call: the arguments by name, as `bind` returns them.

        """
        plan = self._plan()
        rows = None if plan is None else plan[0](call)
        return [None] * self.family.row_count(call) if rows is None else rows

    def places_of(self, blocks: Collection[int] | None) -> frozenset[int] | None:
        """Returns the places of attention modules that guide; None if all do.

        Raises:
            InvalidParameter: there is none, or not in this denoiser.

        """
        if blocks is None:
            return None
        places, count = frozenset(blocks), len(self._swapper.modules)
        if not places or not places <= set(range(count)):
            raise InvalidParameter(
                "blocks",
                f"must be places of attention modules, 0 to {count - 1} in this {type(self.denoiser).__name__}, "
                f"got {sorted(places)}",
            )
        return places

    @contextmanager
    def apply_plan(self, plan: Plan, places: frozenset[int] | None = None) -> Iterator[None]:
        """Makes `plan` decide on the calls of this denoiser in the calling context.

        places: of the attention modules that guide, as `places_of` returns them.
        """
        entry = (self, plan, places)
        _PLANS.set((*_PLANS.get(), entry))
        try:
            yield
        finally:
            _PLANS.set(tuple(other for other in _PLANS.get() if other is not entry))
            self._last_step = None  # it holds prompts, whose text keys end with them

    @property
    def is_planned(self) -> bool:
        """Whether the calling context has a plan for this denoiser."""
        return self._plan() is not None

    def close(self) -> None:
        """Removes every hook and processor."""
        self._leave()
        self._stack.close()

    def _plan(self) -> tuple[Plan, frozenset[int] | None] | None:
        plans = reversed(_PLANS.get())
        return next(((plan, places) for attachment, plan, places in plans if attachment is self), None)

    def _wrap(self, processor: Any, place: int) -> Any:
        guiding = self.family.processor(self.current, processor)
        guiding.place = place
        return guiding

    def _enter(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """Returns the arguments of a denoiser call, with the negative prompt's tokens if the call is guided.

        Those that were passed by place stay so: a compiler makes another graph for another form of the call.
        """
        self._leave()  # an interrupt may have kept the last call from doing so
        call = self._begin_step(self.bind(args, kwargs))
        return tuple(call.pop(name) for name in list(call)[: len(args)]), call

    def _begin_step(self, call: dict[str, Any]) -> dict[str, Any]:
        step = self.family.adapt_step(self._planned_step(call), call)
        if step is None:
            return call
        # Again, for what was set up since the hooks were registered.
        check_compatible(self.denoiser, self.family, is_compiled=self.current.is_traced)
        self._swapper.install()
        self.current.step = step
        negative = step.negative.scatter_rows(step.rows, len(self.family.embeds(call)))
        layout = self.family.layout(call, negative)
        group = head_group(self.denoiser)
        step = replace(
            step.expanded_for_attention(),
            split=self._token_split(call, layout),
            sum_heads=None if group is None else functools.partial(sum_over, group),
        )
        if self.family.caches_text_kv:
            made_from = (self._swapper.generation, weights_fingerprint(self.denoiser))
            copies = (step.rows.stop - step.rows.start) // len(step.prompts)
            step = replace(step, kept=self._text_keys.gather(step.prompts, copies, made_from))
            if step.kept.by_attention:
                self.current.step = replace(step, text_keys=layout.positive)
                return call
        self.current.step = replace(step, layout=layout, text_keys=layout.text)
        return self.family.pack(call, negative)

    def _token_split(self, call: dict[str, Any], layout: TokenLayout) -> TokenSplit | None:
        groups = token_groups(self.denoiser)
        if groups is None or self.family.attention == "cross":
            return None
        return split_tokens(groups, layout, self.family.image_tokens(call), as_one=self.family.is_split_as_one)

    def _planned_step(self, call: dict[str, Any]) -> GuidedStep | None:
        plan = self._plan()
        rows = None if plan is None else plan[0](call)
        if plan is None or rows is None:
            return None
        embeds, frames = self.family.embeds(call), self.family.frames(call)
        made_from = (tuple(rows), plan[1], frames, embeds.device, embeds.dtype)
        if self._last_step is None or self._last_step[0] != made_from:
            self._last_step = made_from, make_step(self.family, call, rows, plan[1])
        step = self._last_step[1]
        return None if step is None else replace(step, scratch={})

    def _leave(self, *, is_complete: bool = False) -> None:
        step = self.current.step
        if step is None:
            return
        self.current.step = None
        self._swapper.restore()
        if is_complete and step.layout is not None and self.family.caches_text_kv:
            self._text_keys.keep(step.prompts, step.kept)

    def _register(self, denoiser: Any, stack: ExitStack) -> None:
        if self.current.is_traced:
            # In the place of the whole call: `denoiser.compile()` traces hooks too, what a step does is decided outside
            # of the graph, and torch runs no hook to release a lock after an interrupt.
            compiled_call = denoiser._compiled_call_impl
            inner = compiled_call or denoiser._call_impl

            @functools.wraps(inner)
            def call(*args: Any, **kwargs: Any) -> Any:
                with self.current.lock:
                    output = None
                    try:
                        args, kwargs = self._enter(args, kwargs)
                        output = inner(*args, **kwargs)
                    finally:
                        self._leave(is_complete=output is not None)
                    return output

            stack.callback(setattr, denoiser, "_compiled_call_impl", compiled_call)
            denoiser._compiled_call_impl = call
            return

        def before(module: nn.Module, args: Any, kwargs: Any) -> tuple[tuple[Any, ...], dict[str, Any]]:  # noqa: ARG001
            return self._enter(args, kwargs)

        def after(module: nn.Module, args: Any, output: Any) -> None:  # noqa: ARG001 (torch's signature)
            self._leave(is_complete=output is not None)  # None after an exception

        stack.callback(denoiser.register_forward_pre_hook(before, with_kwargs=True).remove)
        stack.callback(denoiser.register_forward_hook(after, always_call=True).remove)


@contextmanager
def attach_family(denoiser: Any, family: Family) -> Iterator[Attachment]:
    """Registers the family's hooks on the denoiser, or joins those that are registered already.

    Raises:
        InvalidParameter: the denoiser is attached in another layout.
        UnsupportedPipeline: something set up on the denoiser does not compose with guidance.

    """
    module = original(denoiser)
    with _attaching:
        attachment = vars(module).get(_ATTRIBUTE)
        if attachment is None:
            attachment = Attachment(denoiser, family)
            setattr(module, _ATTRIBUTE, attachment)
        elif attachment.family is not family:
            raise InvalidParameter(
                "pipe", "its denoiser is guided already, with another value of `reference`; end that guidance first"
            )
        attachment.users += 1
    try:
        yield attachment
    finally:
        with _attaching:
            attachment.users -= 1
            if not attachment.users:
                delattr(module, _ATTRIBUTE)
                attachment.close()
