"""A rank of a worker over several devices that serves no jobs: it runs the denoiser calls that rank 0 sends."""

from __future__ import annotations

import signal
import sys
import threading
from typing import Any, NoReturn

import torch

import nag
from app import logs
from app.catalog import Model
from app.loading.adapters import Adapter
from app.loading.download import download
from app.loading.errors import LoadError
from app.loading.hub import has_files
from app.loading.parallel import denoiser_alone, split_denoisers
from app.logs import Log
from app.process_exit import exit_at_once
from app.settings import Settings
from app.worker.devices import memory
from app.worker.devices.device_group import ASYMMETRIC, Channel, device_of_rank, start_followers
from app.worker.devices.gpu import set_precision
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
    if place:
        threading.Thread(target=_end_with_starter, name="starter", daemon=True).start()
    followers = start_followers(settings) if place == 0 else []
    rank, device = settings.node * places + place, device_of_rank(settings, place)
    set_precision(settings, device)
    channel = Channel(settings, rank, settings.nodes * places, device)
    _log.info("rank_joined", rank=rank, device=device, started=len(followers))
    follower = Follower(device, channel, fetches_files=settings.node > 0)
    while True:
        try:
            name, *arguments = channel.receive()
        except RuntimeError:  # rank 0 has ended
            exit_at_once(0)
        try:
            with torch.no_grad():
                getattr(follower, name)(*arguments)
        except (LoadError, nag.UnsupportedPipeline) as error:  # of the model or the LoRA, so rank 0 raises it too
            _log.warning("rank_refused", rank=rank, order=name, message=error)
        except Exception as error:  # the other ranks go on without this one, and so end as soon as they wait for it
            _log.error("rank_failed", rank=rank, order=name, error=type(error).__name__, message=error)
            exit_at_once(1)


def _end_with_starter() -> NoReturn:
    """Ends the process with the one that started it, also while it loads: nobody else would notice."""
    sys.stdin.buffer.read()
    exit_at_once(0)


class Follower:
    """The denoisers of a rank; each method does what rank 0 does to its own at the same time.

    fetches_files: whether it downloads what is not on this machine, since rank 0 does so for its own machine alone.
    """

    def __init__(self, device: torch.device, channel: Channel, *, fetches_files: bool) -> None:
        self._device, self._channel, self._fetches_files = device, channel, fetches_files
        self._entries: dict[str, Model] = {}
        self._pipes: dict[str, Any] = {}
        self._models: dict[str, SharedModel] = {}

    def load(self, fields: dict[str, Any]) -> None:
        """Loads the denoisers of a model, from the fields of its entry, and tells the other ranks whether it has."""
        entry = Model.model_validate(fields)
        self._entries[entry.id] = entry
        try:
            if self._fetches_files and not has_files(entry):
                _log.info("download_begun", model=entry.id, repository=entry.repository)
                download(entry, lambda *_: None)
            self._pipes[entry.id] = load(denoiser_alone(entry), self._device)
        except Exception as error:  # of any rank: rank 0 then has all of them drop the model
            _log.warning("rank_not_loaded", model=entry.id, error=type(error).__name__, message=error)
        self._channel.all_agree(entry.id in self._pipes)

    def split(self, model: str) -> None:
        """Splits them together with all ranks."""
        entry, pipe = self._entries[model], self._pipes[model]
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
