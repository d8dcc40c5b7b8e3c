"""Which devices of a machine each of its workers has."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence

from app.catalog import CatalogError, Model
from app.settings import Settings

__all__ = ["device_sets", "devices_of_worker", "show_devices"]


def device_sets(settings: Settings, models: Iterable[Model]) -> tuple[tuple[int, ...], ...]:
    """Returns the devices of each worker of this machine: as many as the models ask for, in the order of NAG_DEVICES.

    One empty set stands for a worker with the device that NAG_DEVICE names. Raises CatalogError if the numbers differ.
    """
    counts = {model.id: model.parallel.devices for model in models if model.parallel is not None}
    if len(set(counts.values())) > 1:
        asked = ", ".join(f"{model} for {count}" for model, count in counts.items())
        raise CatalogError(
            f"parallel: {asked} devices; models of unequal numbers need workers of their own (NAG_MODELS)"
        )
    ranks = next(iter(counts.values()), 1)
    if not counts and settings.devices is None:
        return ((),)
    names = ", ".join(counts) or "no served model"
    if ranks % settings.nodes:
        raise CatalogError(f"parallel: {names} asks for {ranks} devices, which NAG_NODES={settings.nodes} cannot share")
    count = ranks // settings.nodes
    devices = settings.devices or tuple(range(count))
    if len(devices) % count:
        raise CatalogError(
            f"parallel: {names} asks for {ranks} devices on {settings.nodes} nodes, and NAG_DEVICES has {len(devices)}"
        )
    return tuple(devices[start : start + count] for start in range(0, len(devices), count))


def devices_of_worker(settings: Settings, models: Iterable[Model]) -> tuple[int, ...]:
    """Returns the devices of a worker that is started alone. Raises CatalogError if they suffice for several."""
    sets = device_sets(settings, models)
    if len(sets) > 1:
        raise CatalogError(
            f"NAG_DEVICES has {len(sets) * len(sets[0])} devices, and the served models ask for {len(sets[0])} "
            "(parallel): name the devices of one worker, or use `nag-server up`, which starts a worker for each set of "
            "devices"
        )
    return sets[0]


def show_devices(devices: Sequence[int]) -> None:
    """Makes these GPUs the only ones of this process, numbered from 0. Called before torch is imported."""
    if devices:
        seen = os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",")
        names = [seen[device] if device < len(seen) and seen[device] else str(device) for device in devices]
        os.environ["CUDA_VISIBLE_DEVICES"] = ",".join(names)
