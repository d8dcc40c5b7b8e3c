"""The guiding processors of a denoiser's attention modules, and what the modules are called."""

from __future__ import annotations

import operator
import threading
from collections.abc import Callable, Sequence
from typing import Any

from nag.errors import UnsupportedPipeline
from nag.processors import GuidedProcessor

__all__ = ["ProcessorSwapper", "class_names", "original"]


def original(module: Any) -> Any:
    """Returns the module without the wrapper of `torch.compile`."""
    return getattr(module, "_orig_mod", module)


def class_names(instance: Any) -> set[str]:
    """Returns the names of the instance's class and of its bases."""
    return {kind.__name__ for kind in type(original(instance)).__mro__}


class ProcessorSwapper:
    """Puts guiding processors on attention modules while a denoiser call is guided, and at no other time.

    Between guided calls the modules have their own processors: image adapters are loaded, scaled and unloaded,
    projections fused and backends chosen as without guidance. A processor that was replaced meanwhile is wrapped at the
    next guided call. Plain calls of other threads may meet a guiding processor; it has no step there and runs the
    original one.

    Attributes:
        generation: counts the times that new processors were wrapped; keys kept by earlier ones are stale.

    """

    def __init__(
        self, modules: Sequence[Any], wrap: Callable[[Any, int], GuidedProcessor], known: tuple[str, ...]
    ) -> None:
        if not modules:
            raise UnsupportedPipeline("the denoiser has no attention to a prompt")
        self.modules, self.wrap, self.known = modules, wrap, known
        self.originals: list[Any] = []
        self.guiding: list[GuidedProcessor] = []
        self.generation = 0
        self._users = 0  # guided calls under way, of all threads
        self._lock = threading.Lock()
        self._wrap_found()

    def install(self) -> None:
        """Puts the guiding processors in place for a guided call.

        Raises:
            UnsupportedPipeline: a processor of an unknown kind is in place, whose effect would be lost.

        """
        with self._lock:
            if not self._users:
                self._wrap_found()
                # Bypass `nn.Module.__setattr__`: a processor that is itself a module must stay registered as a child.
                for module, guiding in zip(self.modules, self.guiding, strict=True):
                    vars(module)["processor"] = guiding
            self._users += 1

    def restore(self) -> None:
        """Puts the original processors back after the last of the guided calls under way."""
        with self._lock:
            self._users -= 1
            if self._users:
                return
            for module, processor in zip(self.modules, self.originals, strict=True):
                if "processor" in vars(module).get("_modules", ()):
                    del vars(module)["processor"]
                else:
                    vars(module)["processor"] = processor

    def _wrap_found(self) -> None:
        processors = [module.processor for module in self.modules]
        if len(processors) == len(self.originals) and all(map(operator.is_, processors, self.originals)):
            return
        for processor in processors:
            if not class_names(processor) & set(self.known):
                raise UnsupportedPipeline(
                    f"an attention processor of type {type(processor).__name__} is in place, which guidance does not "
                    f"compose with (it does with {', '.join(self.known)}); unload it first"
                )
        self.originals = processors
        self.guiding = [self.wrap(processor, place) for place, processor in enumerate(processors)]
        self.generation += 1
