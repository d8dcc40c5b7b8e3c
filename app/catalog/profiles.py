"""Settings by which a model's weights fit the memory of a device, from the sizes that its entry records.

The arithmetic is an upper bound of what the weights take. The rest of the memory is for what calls compute.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from app.catalog.loading import Size
from app.catalog.speed import Quantization

if TYPE_CHECKING:
    from app.catalog.entry import Model

__all__ = ["CAST_SHARE", "DEVICE_SHARE", "GB", "Footprint", "fitting_changes", "recorded_footprint"]

GB = 10**9
#: Of a GPU's memory, for the weights of models; the rest is for what their calls need.
DEVICE_SHARE = 0.8
#: Most that layerwise casting leaves of a component in half precision: diffusers keeps norms and their modulation as
#: they are, which of SD3.5 are a third of the weights.
CAST_SHARE = 0.7
#: Most of the device's memory that groups of layers take, in GB: the one that computes and the one that is copied. The
#: largest layers are the embeddings of text encoders, 1.6 GB.
GROUP_GB = 3.2
#: How to take less, by offload and whether the largest components are cast, in the order of what it costs: fewer bits
#: cost some exactness and little time, components that are copied for each call more time, layers the most.
LADDER: tuple[tuple[str, bool], ...] = (
    ("none", False), ("none", True), ("model", False), ("model", True), ("group", False),
)  # fmt: skip


@dataclass(frozen=True)
class Footprint:
    """Bytes that a model's weights take: at most on a GPU, and in main memory."""

    device_bytes: int
    host_bytes: int


def fitting_changes(
    model: Model, gigabytes: float, footprint: Callable[[Model], Footprint | None], stated: frozenset[str] = frozenset()
) -> dict[str, Any] | None:
    """Returns the settings by which a model fits a device, as the entry would state them; None if it fits by none.

    Args:
        model: an entry.
        gigabytes: memory of the device, in units of 10^9 bytes.
        footprint: of an entry; None if it is unknown.
        stated: settings that the entry states itself, which stay.

    """
    for settings in _candidates(model, stated):
        size = footprint(model.model_copy(update=settings))
        if size is not None and size.device_bytes <= DEVICE_SHARE * gigabytes * GB:
            return settings
    return None


def recorded_footprint(model: Model) -> Footprint | None:
    """Returns what the entry's recorded size comes to with its settings; None if that cannot be said of it."""
    size, quantization = model.size, model.quantization
    if size is None or (quantization is not None and not _casts_largest(size, quantization)):
        return None
    loaded, largest, count = size.loaded_gb, size.largest_part_gb, len(size.largest_parts)
    others = max(0.0, loaded - count * largest)  # together, so none of them takes more
    if quantization is not None:
        kept = largest * CAST_SHARE
        loaded, largest = loaded - count * (largest - kept), max(kept, min(largest, others))
    match model.offload:
        case "none":
            # Layers that are cast come to the device from main memory.
            device, host = loaded, size.largest_part_gb if quantization is None else size.loaded_gb
        case "model":
            device, host = largest, loaded
        case "group":
            device, host = min(GROUP_GB, loaded), loaded
    return Footprint(round(device * GB), round(host * GB))


def _casts_largest(size: Size, quantization: Quantization) -> bool:
    return quantization.is_cast and set(quantization.components) == set(size.largest_parts)


def _candidates(model: Model, stated: frozenset[str]) -> Iterator[dict[str, Any]]:
    for offload, is_cast in LADDER:
        settings: dict[str, Any] = {}
        if offload != "none":
            settings["offload"] = offload
        if is_cast:
            if model.size is None:  # the largest components are not known
                continue
            settings["quantization"] = Quantization(method="layerwise-fp8", components=model.size.largest_parts)
        # A stated setting stays, and what cannot be combined with it is not tried.
        if stated & settings.keys() or (is_cast and model.is_compiled):
            continue
        if offload == "group" and (model.cache is not None or model.quantization is not None):
            continue
        yield settings
