"""A rank of a worker over several devices that serves no jobs: it runs the denoiser calls that rank 0 sends."""

from __future__ import annotations

import signal
from typing import Any, NoReturn

import torch

from app import logs
from app.catalog import Model
from app.loading.adapters import Adapter
from app.loading.errors import LoadError
from app.loading.parallel import denoiser_alone, split_denoisers
from app.logs import Log
from app.process_exit import exit_at_once
from app.settings import Settings
from app.worker.devices import memory
from app.worker.devices.device_group import ASYMMETRIC, Channel, device_of_rank, start_followers
from app.worker.engine.pipelines import load
from app.worker.engine.shared_model import SharedModel
from app.worker.engine.shared_modules import DenoiserCall

__all__ = ["follow"]

_log = Log("worker")


def follow(settings: Settings, place: int) -> NoReturn:
    """Follows rank 0 until it ends, then ends the process.

    place: among the ranks of this node. The first one of a further node starts the others there.
    """
    logs.configure(settings.log_level)
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, signal.SIG_IGN)  # rank 0 still finishes its jobs, and this rank ends with it
    assert settings.devices is not None
    places = len(settings.devices)
    if place == 0:
        start_followers(settings)
    rank, device = settings.node * places + place, device_of_rank(settings, place)
    channel = Channel(settings, rank, settings.nodes * places, device)
    _log.info("rank_joined", rank=rank, device=device)
    follower = Follower(device, channel)
    while True:
        try:
            name, *arguments = channel.receive()
        except RuntimeError:  # rank 0 has ended
            exit_at_once(0)
        try:
            with torch.no_grad():
                getattr(follower, name)(*arguments)
        except LoadError as error:  # as rank 0 has it, or it soon asks for what is not here
            _log.warning("rank_not_loaded", rank=rank, order=name, message=error)
        except Exception as error:  # the other ranks go on without this one, and so end as soon as they wait for it
            _log.error("rank_failed", rank=rank, order=name, error=type(error).__name__, message=error)
            exit_at_once(1)


class Follower:
    """The denoisers of a rank; each method does what rank 0 does to its own at the same time."""

    def __init__(self, device: torch.device, channel: Channel) -> None:
        self._device, self._channel = device, channel
        self._entries: dict[str, Model] = {}
        self._pipes: dict[str, Any] = {}
        self._models: dict[str, SharedModel] = {}

    def load(self, fields: dict[str, Any]) -> None:
        """Loads the denoisers of a model, from the fields of its entry."""
        entry = Model.model_validate(fields)
        self._entries[entry.id] = entry
        self._pipes[entry.id] = load(denoiser_alone(entry), self._device)

    def split(self, model: str) -> None:
        """Splits them together with all ranks."""
        entry, pipe = self._entries[model], self._pipes[model]
        self._channel.wait_for_all()
        split_denoisers(pipe, entry, self._device)
        self._models[model] = SharedModel(entry, pipe)

    def drop(self, model: str) -> None:
        """Lets a model go, and its memory with it."""
        for held in (self._entries, self._pipes, self._models):
            held.pop(model, None)
        memory.free(self._device)

    def add_adapter(self, model: str, lora: str, adapter: Adapter) -> None:
        """Makes a LoRA usable."""
        self._models[model].add_adapter(lora, adapter)

    def remove_adapter(self, model: str, lora: str) -> None:
        """Lets a LoRA go."""
        self._models[model].remove_adapter(lora)

    def call(self, model: str, denoiser: str, call: DenoiserCall) -> None:
        """Calls a denoiser. What all ranks raise, rank 0 reports."""
        try:
            self._models[model].denoisers[denoiser].call(call)
        except ASYMMETRIC:
            raise
        except Exception as error:
            _log.debug("call_raised", model=model, error=type(error).__name__)
