"""The ranks of a worker over several devices, a process each: what rank 0 sends to the others, and how they end.

Rank 0 serves. It has the queue, the pipelines, the text encoders and the autoencoders. The other ranks hold the split
denoisers (app.worker.devices.follower) and do what rank 0 sends them, one order after the other. A denoiser call is
sent ahead of rank 0's own, so that all ranks make it together.

A rank that has left the common order cannot return to it. So rank 0 ends with its process if another rank has ended,
keeps it waiting for longer than NAG_RANK_TIMEOUT_S, or may have failed where others did not. Its jobs are lost as with
any worker that dies, and queued again.
"""

from __future__ import annotations

import io
import itertools
import os
import pickle
import shutil
import subprocess
import sys
import tempfile
import threading
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any, NoReturn
from weakref import WeakKeyDictionary, finalize

import torch
import torch.distributed as dist
from torch import Tensor

from app.catalog import Model
from app.loading.errors import LoadError
from app.loading.parallel import split_denoisers
from app.logs import Log
from app.process_exit import exit_at_once
from app.settings import Settings
from app.worker.engine import pipelines
from nag.negative import NegativeEmbeds

__all__ = ["ASYMMETRIC", "Channel", "DeviceGroup", "device_of_rank", "start_followers"]

#: Errors that one rank may have alone: of memory, of a kernel, of a collective. What checks raise, all ranks raise.
ASYMMETRIC = (RuntimeError, MemoryError)
#: An idle rank waits for orders for as long as rank 0 lives.
FOREVER = timedelta(days=365)
#: For all ranks to import torch and to join.
START = timedelta(minutes=10)
CPU = torch.device("cpu")
_log = Log("worker")


def device_of_rank(settings: Settings, place: int) -> torch.device:
    """Returns the device of the rank that has this place among those of its node."""
    device = pipelines.resolve_device(settings.device)
    return torch.device(device.type, place) if device.type == "cuda" else device


class Channel:
    """Hands orders of rank 0 to all other ranks, tensors by the devices' own connection.

    Args:
        settings: have the rendezvous and the number of machines.
        rank: number of this process, from 0.
        ranks: number of all processes.
        device: of this process.

    """

    def __init__(self, settings: Settings, rank: int, ranks: int, device: torch.device) -> None:
        if settings.nodes == 1:  # sockets that nobody beyond this machine can reach
            for library in ("GLOO", "NCCL"):
                os.environ.setdefault(f"{library}_SOCKET_IFNAME", "lo" if sys.platform == "linux" else "lo0")
        if device.type == "cuda":
            torch.cuda.set_device(device)
        dist.init_process_group(
            "cpu:gloo,cuda:nccl" if device.type == "cuda" else "cpu:gloo",  # diffusers looks for "cpu" in it
            init_method=settings.rendezvous,
            rank=rank,
            world_size=ranks,
            timeout=START,
        )
        self._device = device
        self._orders = dist.new_group(backend="gloo", timeout=FOREVER)
        self._numbers: WeakKeyDictionary[NegativeEmbeds, int] = WeakKeyDictionary()  # of those that were sent
        self._next_number = itertools.count()
        self._dropped: deque[int] = deque()  # numbers of those that no longer live on rank 0
        self._negatives: dict[int, NegativeEmbeds] = {}  # by number, as they were received

    def send(self, *order: Any) -> None:
        """Sends an order to all other ranks."""
        dropped = [self._dropped.popleft() for _ in range(len(self._dropped))]
        file, tensors = io.BytesIO(), []

        def persistent_id(value: Any) -> Any:
            if isinstance(value, Tensor):
                tensors.append(value)
                return "tensor", tuple(value.shape), value.dtype, value.device.type
            if isinstance(value, NegativeEmbeds):  # the same object there, by which text keys are kept
                number, is_new = self._numbers.get(value), value not in self._numbers
                if number is None:
                    number = self._numbers[value] = next(self._next_number)
                    finalize(value, self._dropped.append, number)
                return "negative", number, vars(value) if is_new else None
            return None

        pickler = pickle.Pickler(file)
        pickler.persistent_id = persistent_id  # type: ignore[method-assign]
        pickler.dump((dropped, order))
        dist.broadcast_object_list([file.getvalue()], src=0, group=self._orders, device=CPU)
        for tensor in tensors:
            # Not `contiguous`, which leaves an expanded tensor of one element as it is.
            self._broadcast(tensor.detach().clone(memory_format=torch.contiguous_format))

    def receive(self) -> tuple[Any, ...]:
        """Waits for the next order."""
        received: list[Any] = [None]
        dist.broadcast_object_list(received, src=0, group=self._orders, device=CPU)
        tensors: list[Tensor] = []

        def persistent_load(value: Any) -> Any:
            if value[0] == "tensor":
                _, shape, dtype, device = value
                tensors.append(torch.empty(shape, dtype=dtype, device=self._device if device != "cpu" else CPU))
                return tensors[-1]
            _, number, fields = value
            if fields is not None:
                self._negatives[number] = NegativeEmbeds(**fields)
            return self._negatives[number]

        unpickler = pickle.Unpickler(io.BytesIO(received[0]))  # noqa: S301 - of rank 0
        unpickler.persistent_load = persistent_load  # type: ignore[method-assign]
        dropped, order = unpickler.load()
        for tensor in tensors:
            self._broadcast(tensor)
        for number in dropped:
            del self._negatives[number]
        return tuple(order)

    def all_agree(self, is_done: bool) -> bool:
        """Waits until every rank has called this, and returns whether each of them is done."""
        done = torch.tensor([is_done], dtype=torch.uint8)
        dist.all_reduce(done, dist.ReduceOp.MIN, group=self._orders)
        return bool(done)

    def _broadcast(self, tensor: Tensor) -> None:
        if tensor.numel():
            dist.broadcast(tensor.view(-1).view(torch.uint8), src=0)


class DeviceGroup:
    """Rank 0's side. Used by the engine's thread. Starts the other ranks of its machine, and waits for them to join."""

    def __init__(self, settings: Settings) -> None:
        assert settings.devices is not None
        ranks = settings.nodes * len(settings.devices)
        self._folder = Path(tempfile.mkdtemp(prefix="nag-ranks-"))
        if settings.rendezvous is None:
            settings = settings.model_copy(update={"rendezvous": f"file://{self._folder / 'store'}"})
        self._timeout_s, self._device = settings.rank_timeout_s, device_of_rank(settings, 0)
        self._is_closed = False
        self._followers = start_followers(settings)
        for rank, follower in enumerate(self._followers, 1):
            threading.Thread(target=self._watch, args=(rank, follower), name=f"rank {rank}", daemon=True).start()
        try:
            self._channel = Channel(settings, 0, ranks, self._device)
        except Exception:
            self._is_closed = True
            self._end_followers()
            raise

    def load(self, entry: Model, device: torch.device) -> Any:
        """Loads a pipeline, and its denoisers on all ranks. Raises what loading raises."""
        if entry.parallel is None:
            return pipelines.load(entry, device)
        self.send("load", entry.model_dump())
        try:
            pipe = self._load(entry, device)
            self.send("split", entry.id)
            with self.in_step():
                split_denoisers(pipe, entry, device)
        except Exception:
            self.send("drop", entry.id)
            raise
        return pipe

    def _load(self, entry: Model, device: torch.device) -> Any:
        """Loads a pipeline, and waits without limit for the other ranks, which may load for longer."""
        is_loaded = False
        try:
            pipe = pipelines.load(entry, device)
            is_loaded = True
        finally:
            with self._as_one():
                is_loaded_by_all = self._channel.all_agree(is_loaded)
        if not is_loaded_by_all:
            raise LoadError(entry.id, "another rank could not load it, and its log says why")
        return pipe

    def send(self, *order: Any) -> None:
        """Sends an order to all other ranks: the name of a method of Follower, and its arguments."""
        with self.in_step():
            self._channel.send(*order)

    @contextmanager
    def in_step(self) -> Iterator[None]:
        """Ends the worker if the block, which all ranks run, takes too long, or raises what others may not raise."""
        reason = f"a rank kept the others waiting for {self._timeout_s:g} s (NAG_RANK_TIMEOUT_S)"
        timer = threading.Timer(self._timeout_s, self._end_worker, [reason])
        timer.start()
        try:
            with self._as_one():
                yield
                if self._device.type == "cuda":  # a collective that hangs does so there
                    torch.cuda.current_stream(self._device).synchronize()
        finally:
            timer.cancel()

    @contextmanager
    def _as_one(self) -> Iterator[None]:
        try:
            yield
        except ASYMMETRIC as error:
            if not self._is_closed:
                self._end_worker(f"{type(error).__name__}: {error}")
            raise

    def close(self) -> None:
        """Ends the other ranks of this machine. Those of others end with the connection, as this process ends.

        A call may still be under way in another thread: it raises, or waits until the process ends.
        """
        self._is_closed = True
        self._end_followers()

    def _watch(self, rank: int, follower: subprocess.Popen[bytes]) -> None:
        code = follower.wait()
        if not self._is_closed:
            self._end_worker(f"rank {rank} ended with code {code}")

    def _end_worker(self, reason: str) -> NoReturn:
        _log.error("rank_lost", reason=reason)
        self._is_closed = True
        self._end_followers()
        exit_at_once(1)

    def _end_followers(self) -> None:
        for follower in self._followers:
            follower.kill()
            assert follower.stdin is not None
            follower.stdin.close()
        shutil.rmtree(self._folder, ignore_errors=True)


def start_followers(settings: Settings) -> list[subprocess.Popen[bytes]]:
    """Starts the ranks of this machine but for the first, for which only the devices of the worker are there.

    They end as soon as their standard input does: with this process, however it ends.
    """
    assert settings.devices is not None
    places = range(len(settings.devices))
    settings = settings.model_copy(update={"devices": tuple(places)})
    return [
        subprocess.Popen(  # noqa: S603 - this program
            [sys.executable, "-m", "app.cli", "worker", "--place", str(place)],
            env=os.environ | settings.as_environment(),
            stdin=subprocess.PIPE,
            start_new_session=True,  # Ctrl-C reaches rank 0 alone
        )
        for place in places[1:]
    ]
