"""What every benchmark prints beside its table: the machine, and the table as Markdown and JSON."""

from __future__ import annotations

import json
import os
import platform
from collections.abc import Sequence
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).parent / "results"


def machine(device: str = "cpu") -> str:
    """Processor or GPU, cores, torch version."""
    import torch

    if device.startswith("cuda"):
        return f"{torch.cuda.get_device_name()}, torch {torch.__version__}"
    names = [line.split(":")[1].strip() for line in _cpuinfo() if line.startswith("model name")]
    return f"{names[0] if names else platform.machine()}, {os.cpu_count()} cores, torch {torch.__version__}"


def markdown(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [columns, ["---"] * len(columns), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def write(
    name: str,
    title: str,
    columns: Sequence[str],
    rows: Sequence[Sequence[str]],
    data: Any,
    on: str,
    *,
    notes: Sequence[str] = (),
    folder: Path = RESULTS,
) -> None:
    """Prints the table, the notes below it, and stores it as <name>.md and .json, in results/ unless told otherwise."""
    text = "\n\n".join([title, markdown(columns, rows), *notes, f"Machine: {on}"])
    print(text)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"{name}.md").write_text(text + "\n")
    (folder / f"{name}.json").write_text(json.dumps({"title": title, "machine": on, "data": data}, indent=1) + "\n")


def _cpuinfo() -> list[str]:
    path = Path("/proc/cpuinfo")
    return path.read_text().splitlines() if path.exists() else []
