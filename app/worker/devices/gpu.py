"""The precision of a CUDA device, and what it says of itself. Utilization needs the package `nvidia-ml-py`."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from prometheus_client.metrics_core import Metric as Family
from prometheus_client.registry import Collector

from app.metrics import definitions as d
from app.metrics.prometheus_metrics import value_family
from app.settings import Settings

__all__ = ["GpuCollector", "set_precision"]


def set_precision(settings: Settings, device: torch.device) -> None:
    """Has a GPU multiply float32 matrices in TF32 if the settings say so. Torch knows it of the whole process alone."""
    if device.type == "cuda" and settings.tf32:
        torch.set_float32_matmul_precision("high")


class GpuCollector(Collector):
    """Asked at each scrape; what the device does not tell (utilization of a MIG slice) is left out."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._labels = (str(device.index or 0),)
        self._nvml = _handle(device)

    def collect(self) -> Iterator[Family]:
        free, size = torch.cuda.mem_get_info(self._device)
        yield value_family(d.GPU_USED, {self._labels: size - free})
        yield value_family(d.GPU_SIZE, {self._labels: size})
        if self._nvml is not None:
            pynvml, handle = self._nvml
            try:
                percent = pynvml.nvmlDeviceGetUtilizationRates(handle).gpu
            except pynvml.NVMLError:
                return
            yield value_family(d.GPU_BUSY, {self._labels: percent / 100})


def _handle(device: torch.device) -> tuple[Any, Any] | None:
    """By the device's UUID: torch counts only the devices it was shown."""
    try:
        import pynvml
    except ImportError:
        return None
    try:
        pynvml.nvmlInit()
        uuid = str(torch.cuda.get_device_properties(device).uuid)
        return pynvml, pynvml.nvmlDeviceGetHandleByUUID(f"GPU-{uuid}")
    except (pynvml.NVMLError, AttributeError):
        return None
