"""Compares the device memory of loaded models with what the planner computes from their files (app.loading.size).

The embedded models, with each setting whose weights stay on the device as a whole.
"""

from __future__ import annotations

import gc
from dataclasses import dataclass
from typing import Any

import torch

from app.catalog import Catalog, Model, Quantization
from app.loading.size import model_size
from app.settings import Settings
from app.worker.devices import memory
from app.worker.engine import pipelines
from benchmarks import report
from benchmarks.gpu.arguments import parser

COLUMNS = ("model", "setting", "computed, MB", "measured, MB", "measured / computed")
MODELS = ("shapes-flux", "shapes-sd", "shapes-wan")


@dataclass(frozen=True)
class _Setting:
    name: str
    changes: dict[str, Any]


def settings_of(entry: Model) -> list[_Setting]:
    """Returns the settings whose weights stay on the device as a whole."""
    denoiser = "unet" if entry.family == "sd" else "transformer"
    cast = Quantization(method="layerwise-fp8", components=(denoiser,))
    return [
        _Setting("float32", {}),
        _Setting("bfloat16", {"dtype": "bfloat16"}),
        _Setting("bfloat16, layerwise-fp8", {"dtype": "bfloat16", "quantization": cast}),
    ]


def main() -> None:
    arguments = parser(__doc__).parse_args()
    device, known = torch.device(arguments.device), Catalog.known(Settings())
    rows, data = [], []
    for name in MODELS[: 1 if arguments.small else None]:
        for setting in settings_of(known[name]):
            entry = known[name].model_copy(update=setting.changes)
            size = model_size(entry)
            assert size is not None
            computed = size.of_device(device.type)
            before = _allocated(device)
            pipe = pipelines.load(entry, device)
            measured = memory.held_bytes(pipe) if device.type == "cpu" else _allocated(device) - before
            del pipe
            memory.free(device)
            data.append({"model": name, "setting": setting.name, "computed": computed, "measured": measured})
            rows.append(
                (name, setting.name, f"{computed / 1e6:.1f}", f"{measured / 1e6:.1f}", f"{measured / computed:.2f}")
            )
    report.write(
        "memory", "Memory of loaded weights against the planner's arithmetic", COLUMNS, rows, data,
        report.machine(arguments.device), folder=arguments.out,
    )  # fmt: skip


def _allocated(device: torch.device) -> int:
    gc.collect()
    return torch.cuda.memory_allocated(device) if device.type == "cuda" else 0


if __name__ == "__main__":
    main()
