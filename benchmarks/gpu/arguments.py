"""The arguments that every part of `benchmarks.gpu` takes."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path
from statistics import median
from time import perf_counter
from typing import Any

import torch

from benchmarks import report

__all__ = ["parser", "seconds_of"]


def parser(description: str | None) -> argparse.ArgumentParser:
    """Makes a parser with `--device`, `--out` and `--small`."""
    made = argparse.ArgumentParser(description=(description or "").partition("\n")[0])
    made.add_argument("--device", default="cuda")
    made.add_argument("--out", type=Path, default=report.RESULTS, help="folder of the tables")
    made.add_argument("--small", action="store_true", help="small tensors and few blocks")
    return made


def seconds_of(call: Callable[[], Any], device: str, rounds: int) -> float:
    """Returns the median seconds of a call, after one that does not count; the device is waited for."""
    times = []
    for _ in range(rounds + 1):
        begun_s = perf_counter()
        call()
        if device.startswith("cuda"):
            torch.cuda.synchronize()
        times.append(perf_counter() - begun_s)
    return median(times[1:])
