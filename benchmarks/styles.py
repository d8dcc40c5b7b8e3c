"""Do the embedded LoRAs bring out their styles, and is the caption still kept? With and without NAG.

python -m benchmarks.styles
"""

from __future__ import annotations

import argparse
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from app.catalog import Catalog
from app.settings import Settings
from benchmarks import report
from benchmarks.suppression.figures import save_sheet
from benchmarks.suppression.methods import NAG, NONE, Method
from benchmarks.suppression.pairs import Pair, pairs
from benchmarks.suppression.score import percent, score
from benchmarks.suppression.subject import Subject
from training.shapes.styles import STYLES

__all__ = ["Row", "load_styles", "make"]

MODEL, SAMPLES = "shapes-flux", 10
COLUMNS = ("LoRA", "guidance", *(f"{style} %" for style in STYLES), "caption kept %", "negative absent %")


@dataclass(frozen=True)
class Row:
    """LoRAs with their weights, and what guides."""

    method: Method = NONE
    loras: Mapping[str, float] = field(default_factory=dict)

    @property
    def label(self) -> str:
        return " + ".join(f"{name} {scale:g}" for name, scale in self.loras.items()) or "none"


LORAS = {name: lora for name, lora in Catalog.load(Settings()).loras.items() if name in STYLES}
ROWS = [
    Row(method, loras)
    for loras in ({}, *({name: lora.scale.default} for name, lora in LORAS.items()))
    for method in (NONE, NAG)
]


def load_styles(subject: Subject) -> None:
    """Loads the catalog's LoRAs into the pipeline, by diffusers, none of them in force."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Already found a `peft_config`")  # of the one before
        for name, lora in LORAS.items():
            path = Path(lora.path or "")
            subject.pipe.load_lora_weights(path.parent, weight_name=path.name, adapter_name=name)


def make(subject: Subject, asked: Sequence[Pair], row: Row) -> NDArray[np.uint8]:
    """Returns an image (N, H, W, 3) for each pair."""
    if row.loras:
        subject.pipe.enable_lora()
        subject.pipe.set_adapters(list(row.loras), list(row.loras.values()))
    else:
        subject.pipe.disable_lora()
    return np.concatenate(list(subject.make(asked, row.method, subject.steps)))


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.styles", description=__doc__)
    parser.add_argument("--seeds", type=int, default=160, help="images per row")
    seeds = parser.parse_args().seeds
    subject = Subject.load(MODEL)
    load_styles(subject)
    half = pairs("held-out", clips=False)
    asked = [half[i % len(half)] for i in range(seeds)]
    table, sheet = [], dict[str, NDArray[np.uint8]]()
    for row in ROWS:
        images = make(subject, asked, row)
        found = score(asked, list(subject.judge(images)))
        shares = [sum(map(style.is_in, images)) / seeds for style in STYLES.values()]
        values = [percent(share, seeds) for share in (*shares, found.kept, found.absent)]
        table.append([row.label, row.method.label, *values])
        print(" | ".join(table[-1]), flush=True)
        sheet[f"{row.label}\n{row.method.label}"] = images[:: max(1, seeds // SAMPLES)][:SAMPLES]
    title = f"LoRAs of {MODEL}: {seeds} held-out pairs per row, {subject.steps} steps, 95 % intervals"
    data = [dict(zip(COLUMNS, values, strict=True)) for values in table]
    report.write("styles", title, COLUMNS, table, data, report.machine())
    save_sheet(sheet, report.RESULTS / "styles.png")


if __name__ == "__main__":
    main()
