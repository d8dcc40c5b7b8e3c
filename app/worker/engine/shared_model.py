"""A loaded model, whose modules are shared by many pipeline calls."""

from __future__ import annotations

import copy
from collections.abc import Hashable
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

from torch import nn

import nag
from app.catalog import Model
from app.loading.adapters import Adapter
from app.loading.tasks import task_pipeline
from app.worker.engine.adapters import Loras, RowAdapters
from app.worker.engine.calls import suspend_calls, suspend_method
from app.worker.engine.shared_modules import (
    RowwiseModule,
    SharedAutoencoder,
    SharedDenoiser,
    SharedModule,
    UnsharedModule,
)
from app.worker.engine.step_cache import StepCacheStates
from app.worker.prompts.tokens import route_tokenizers
from nag.families.family import denoisers_of

if TYPE_CHECKING:
    from app.worker.devices.device_group import DeviceGroup

__all__ = ["SharedModel"]

#: Autoencoders that decode one video per call: the mask of HunyuanVideo 1.5's attention fits no more than one.
DECODE_ONE = ("AutoencoderKLHunyuanVideo15",)


class SharedModel:
    """A loaded pipeline whose modules suspend the pipeline calls that call them.

    Attributes:
        entry: its catalog entry.
        pipe: as it was loaded; each call runs on a copy of its own (`own_pipeline`).
        group: the other ranks, if the denoisers are split over several devices and this process is rank 0.
        denoisers: by name, those whose calls join.
        negative_key: of the latest guided call.

    """

    def __init__(self, entry: Model, pipe: Any, group: DeviceGroup | None = None) -> None:
        self.entry = entry
        self.pipe = pipe
        self.group = None if entry.parallel is None else group
        self.denoisers: dict[str, SharedDenoiser] = {}
        self.negative_key: Hashable = None
        self._loading = object()  # another one each time that the model is loaded
        self._device = pipe._execution_device
        self._tasks: dict[str, Any] = {}
        self._step_caches: list[StepCacheStates] = []
        modules = {name: part for name, part in pipe.components.items() if isinstance(part, nn.Module)}
        denoisers = denoisers_of(pipe)
        self._adapters = {name: RowAdapters(part) for name, part in modules.items()}
        with ExitStack() as stack:
            if self.group is not None:  # other ranks let it go too, also if it cannot be shared
                stack.callback(self.group.send, "drop", entry.id)
            for name, part in modules.items():
                if part in denoisers:
                    self._share_denoiser(name, part, stack)
                elif name.startswith("text_encoder"):
                    text = RowwiseModule(self, self._adapters[name], "text")
                    text.inner = suspend_calls(part, text.prepare, stack)
            vae = getattr(pipe, "vae", None)
            if isinstance(vae, nn.Module):
                self._share_autoencoder(vae, stack)
            route_tokenizers(pipe, stack)
            self._stack = stack.pop_all()

    def _share_denoiser(self, name: str, denoiser: nn.Module, stack: ExitStack) -> None:
        shared: SharedModule
        is_compiled = self.entry.is_compiled
        step_cache = StepCacheStates(denoiser, stack)
        self._step_caches.append(step_cache)
        try:
            # Attached for as long as the model is loaded: a request neither waits for it nor compiles anything anew.
            attachment = stack.enter_context(nag.attach(denoiser))
            unordered_layers = attachment.family.unordered_layers
            adapters = RowAdapters(attachment.denoiser, unordered_layers, is_compiled=is_compiled)
            shared = self.denoisers[name] = SharedDenoiser(self, name, adapters, attachment, step_cache)
        except nag.UnsupportedPipeline:
            if self.entry.parallel is not None:  # its calls would reach rank 0 alone
                raise
            shared = UnsharedModule(self, RowAdapters(denoiser, is_compiled=is_compiled), step_cache)
        self._adapters[name] = shared.adapters
        shared.inner = suspend_calls(denoiser, shared.prepare, stack)

    def _share_autoencoder(self, vae: nn.Module, stack: ExitStack) -> None:
        for name in ("encode", "decode"):
            if hasattr(vae, name):
                # What an encoder returns is a distribution, whose rows are not known.
                joins = name == "decode" and type(vae).__name__ not in DECODE_ONE
                tiling = self.entry.vae_tiling
                if isinstance(tiling, bool):
                    method = RowwiseModule(self, self._adapters["vae"], name, joins=joins)
                else:
                    method = SharedAutoencoder(self, self._adapters["vae"], name, joins=joins, side_px=tiling)
                method.inner = suspend_method(vae, name, method.prepare, stack)
        # Each pipeline call asks for its device, and diffusers walks through the modules three times to find it.
        own = vars(vae)
        own["modules"] = list(vae.modules()).__iter__
        stack.callback(own.pop, "modules")

    def own_pipeline(self, task: str) -> Any:
        """Returns a pipeline for one call of a task: its own scheduler and guider, and the shared modules."""
        if task not in self._tasks:
            self._tasks[task] = copy.copy(task_pipeline(self.pipe, task))
            kind = type(self._tasks[task])
            # A pipeline looks for its device through all modules, several times per call.
            self._tasks[task].__class__ = type(
                kind.__name__, (kind,), {"_execution_device": self._device, "__module__": kind.__module__}
            )
        own = copy.copy(self._tasks[task])
        own.scheduler = copy.deepcopy(self.pipe.scheduler)
        if hasattr(own, "guider"):  # it counts the steps
            own.guider = copy.deepcopy(self.pipe.guider)
        # Offloaded modules go when the model is idle, not when one of several calls ends.
        own.maybe_free_model_hooks = lambda: None
        return own

    def add_adapter(self, lora: str, adapter: Adapter) -> None:
        """Makes a LoRA usable by the calls of pipeline calls that state it (`CALL_LORAS`)."""
        if self.group is not None:
            parts = {name: layers for name, layers in adapter.parts.items() if name in self.denoisers}
            self.group.send("add_adapter", self.entry.id, lora, Adapter(parts))
        for name, layers in adapter.parts.items():
            self._adapters[name].add(lora, layers)

    def remove_adapter(self, lora: str) -> None:
        """Lets a LoRA go, and its memory with it."""
        if self.group is not None:
            self.group.send("remove_adapter", self.entry.id, lora)
        for adapters in self._adapters.values():
            adapters.remove(lora)

    def text_weights(self, loras: Loras) -> Hashable:
        """Returns what stands for the text encoders' weights with these LoRAs, for as long as the model is loaded."""
        adapters = [part for name, part in self._adapters.items() if name.startswith("text_encoder")]
        changing = {use for part in adapters for use in part.effective(loras)}
        return self._loading, tuple(use for use in loras if use in changing)

    def forget_call(self, number: int) -> None:
        """Drops what step caches keep of a pipeline call."""
        for step_cache in self._step_caches:
            step_cache.forget(number)

    def free_modules(self) -> None:
        """Moves offloaded modules off the device, between calls."""
        if self.entry.offload == "model":
            self.pipe.maybe_free_model_hooks()

    def close(self) -> None:
        """Leaves the modules as they were loaded; other ranks let them go."""
        self._stack.close()
