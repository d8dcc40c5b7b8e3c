"""Hooks on parts of a denoiser that act in guided calls alone."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from nag.current_step import CurrentStep
from nag.guided_step import GuidedStep
from nag.negative import scatter_rows

__all__ = ["ChangeArguments", "StepHooks", "change_argument"]

#: Changes positional and named arguments of a call.
ChangeArguments = Callable[[GuidedStep, Any, dict[str, Any]], tuple[Any, dict[str, Any]]]
#: Gets the positional arguments of a call and what it returned; returns what takes its place, or None.
ChangeOutput = Callable[[GuidedStep, Any, Any], Any]


@dataclass(frozen=True)
class StepHooks:
    """Registers hooks of one denoiser, which are removed with the stack.

    They run if the negative prompt's tokens travel in the call: if it is guided, and not by kept text keys.
    """

    current: CurrentStep
    stack: ExitStack

    def before(self, module: nn.Module, change: ChangeArguments) -> None:
        """Changes the arguments of a module."""
        current = self.current

        def hook(module: nn.Module, args: Any, kwargs: dict[str, Any]) -> tuple[Any, dict[str, Any]]:  # noqa: ARG001
            step = current.step
            if step is None or step.layout is None:
                return args, kwargs
            return change(step, args, kwargs)

        self.stack.callback(module.register_forward_pre_hook(hook, with_kwargs=True).remove)

    def after(self, module: nn.Module, change: ChangeOutput) -> None:
        """Reads or changes what a module returns."""
        current = self.current

        def hook(module: nn.Module, args: Any, output: Any) -> Any:  # noqa: ARG001 (torch's signature)
            step = current.step
            if step is None or step.layout is None:
                return output
            return change(step, args, output)

        self.stack.callback(module.register_forward_hook(hook).remove)

    def append_text(self, block: nn.Module, place: int, name: str, tokens: Callable[[GuidedStep], Tensor]) -> None:
        """Puts the negative's tokens behind the text that a block takes as its argument `name`, at `place`.

        It is for models that embed, refine or reorder their text ahead of the first block.

        Args:
            block: a block of the denoiser.
            place: of the argument among those passed by place.
            name: of the argument.
            tokens: returns the tokens of the guided rows.

        """

        def append(step: GuidedStep, args: Any, kwargs: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
            def join(text: Tensor) -> Tensor:
                return torch.cat([text, scatter_rows(tokens(step), step.rows, len(text))], dim=1)

            return change_argument(args, kwargs, place, name, join)

        self.before(block, append)


def change_argument(
    args: Any, kwargs: dict[str, Any], place: int, name: str, change: Callable[[Any], Any]
) -> tuple[Any, dict[str, Any]]:
    """Returns the arguments of a call with one of them changed, whichever way it was passed."""
    if len(args) > place:
        return (*args[:place], change(args[place]), *args[place + 1 :]), kwargs
    return args, kwargs | {name: change(kwargs[name])}
