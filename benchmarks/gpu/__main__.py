"""Runs every benchmark that waits for a GPU, each within its own time, and stores the tables by the device's name.

    python -m benchmarks.gpu

A part that fails or takes too long is said, and the others go on. The tables are in `benchmarks/results/gpu-NAME/`;
`summary.md` there says which parts ran. `--device cpu --small` tries all of it on a CPU, with small tensors.
"""

from __future__ import annotations

import argparse
import re
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter

import torch

from benchmarks import report

ROOT = Path(__file__).parents[2]
TOTAL_S = 590.0
COLUMNS = ("part", "result", "seconds")


@dataclass(frozen=True)
class Part:
    """A command, `python -m` and these words, and the seconds that it may take."""

    name: str
    words: tuple[str, ...]
    limit_s: float


def parts_of(device: str, out: Path, *, small: bool) -> list[Part]:
    """Returns the parts in the order of what is asked for most."""
    to = ("--device", device, "--out", str(out))
    own = (*to, "--small") if small else to
    size = ("--small", "--rounds", "1") if small else ("--full",)
    models = ("--models", "shapes-flux", "--images", "1", *(("--only", "vae_tiling") if small else ()))
    return [
        Part("kernels against float64", ("benchmarks.gpu.kernels", *own), 45),
        *(Part(f"NAG cost, {name}", ("benchmarks.nag_cost", *to, *size, "--family", name), 75) for name in COSTED),
        Part("joined batches", ("benchmarks.gpu.steps", *own, "--table", "joined"), 60),
        Part("memory and the planner", ("benchmarks.gpu.memory", *own), 45),
        Part("decoding beside denoising", ("benchmarks.gpu.overlap", *own), 45),
        Part("attention backends", ("benchmarks.gpu.steps", *own, "--table", "attention"), 60),
        Part("quantization", ("benchmarks.gpu.steps", *own, "--table", "quantization"), 60),
        Part("compile", ("benchmarks.gpu.steps", *own, "--table", "compile"), 90),
        Part("speed settings", ("benchmarks.settings", *to, *models), 90),
    ]


COSTED = ("flux", "sd3", "wan")


def run(parts: Sequence[Part], total_s: float = TOTAL_S) -> list[tuple[str, str, float]]:
    """Runs the parts one after the other, and returns of each its name, how it ended and its seconds."""
    begun_s, rows = perf_counter(), []
    for part in parts:
        part_begun_s = perf_counter()
        left_s = total_s - (part_begun_s - begun_s)
        limit_s = min(part.limit_s, left_s)
        print(f"\n# {part.name}\n", flush=True)
        try:
            if limit_s <= 0:
                result = "not begun: no time was left"
            else:
                code = subprocess.run([sys.executable, "-m", *part.words], cwd=ROOT, timeout=limit_s, check=False)
                result = "done" if code.returncode == 0 else f"failed with code {code.returncode}"
        except subprocess.TimeoutExpired:
            result = f"ended after its {limit_s:.0f} s"
        rows.append((part.name, result, perf_counter() - part_begun_s))
    return rows


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--small", action="store_true", help="small tensors and few blocks, to try the script")
    parser.add_argument("--out", type=Path, help="folder of the tables; absent: by the device's name in results")
    parser.add_argument("--only", nargs="*", default=(), help="parts whose name holds one of these words")
    arguments = parser.parse_args()
    if arguments.device.startswith("cuda") and not torch.cuda.is_available():
        print("there is no CUDA device; try the script with --device cpu --small")
        return 1
    on = report.machine(arguments.device)
    name = re.sub(r"[^a-z0-9]+", "-", on.partition(",")[0].lower()).strip("-")
    out = arguments.out or report.RESULTS / f"gpu-{name}"
    parts = parts_of(arguments.device, out.resolve(), small=arguments.small)
    parts = [part for part in parts if not arguments.only or any(word in part.name for word in arguments.only)]
    rows = run(parts)
    cells = [(part, result, f"{seconds:.0f}") for part, result, seconds in rows]
    report.write("summary", "Parts of `make gpu`", COLUMNS, cells, rows, on, folder=out)
    return 0 if all(result == "done" for _, result, _ in rows) else 1


if __name__ == "__main__":
    sys.exit(main())
