"""The guiding processors of a denoiser's attention modules, and what the modules are called."""

from __future__ import annotations

import operator
from collections.abc import Callable, Sequence
from typing import Any

from nag.errors import UnsupportedPipeline
from nag.processors import GuidedProcessor

__all__ = ["Processors", "class_names", "original"]


def original(module: Any) -> Any:
    """The module itself, where `torch.compile` has wrapped it."""
    return getattr(module, "_orig_mod", module)


def class_names(instance: Any) -> set[str]:
    """Names of the instance's class and of all that it inherits from."""
    return {kind.__name__ for kind in type(original(instance)).__mro__}


class Processors:
    """The guiding processors of a denoiser's attention modules, in place while it runs guided and at no other time.

    Between its calls everything else finds what it knows: image adapters are loaded, scaled and unloaded, projections
    fused and backends chosen as without guidance. What has taken a processor's place by then is wrapped in its turn.
    """

    def __init__(
        self, modules: Sequence[Any], guided: Callable[[Any], GuidedProcessor], known: tuple[str, ...]
    ) -> None:
        if not modules:
            raise UnsupportedPipeline("the denoiser has no attention to a prompt")
        self.modules, self.guided, self.known = modules, guided, known
        self.plain: list[Any] = []
        self.guiding: list[GuidedProcessor] = []
        self.in_place = False
        self.renew()

    def renew(self) -> bool:
        """Wraps what stands on the modules now; whether anything there is new.

        Raises:
            UnsupportedPipeline: a processor of another kind is in place, whose effect would be lost.

        """
        found = [module.processor for module in self.modules]
        if len(found) == len(self.plain) and all(map(operator.is_, found, self.plain)):
            return False
        for plain in found:
            if not class_names(plain) & set(self.known):
                raise UnsupportedPipeline(
                    f"an attention processor of type {type(plain).__name__} is in place, which guidance does not "
                    f"compose with (it does with {', '.join(self.known)}); unload it first"
                )
        self.plain, self.guiding = found, [self.guided(plain) for plain in found]
        return True

    def put(self) -> None:
        """Puts the guiding ones in place."""
        self.in_place = True
        # Past a module's own bookkeeping: a processor with weights of its own stays among its children.
        for module, guiding in zip(self.modules, self.guiding, strict=True):
            vars(module)["processor"] = guiding

    def take_back(self) -> None:
        """The modules as they were found."""
        if not self.in_place:
            return
        self.in_place = False
        for module, plain in zip(self.modules, self.plain, strict=True):
            if "processor" in vars(module).get("_modules", ()):
                del vars(module)["processor"]
            else:
                vars(module)["processor"] = plain
