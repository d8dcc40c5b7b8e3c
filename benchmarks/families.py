"""The README's table of families: what each can do, and what a guided step of it was measured to cost.

python -m benchmarks.families --write
"""

from __future__ import annotations

import argparse
import json
import re
import statistics
from pathlib import Path

import nag
from benchmarks.report import RESULTS

README = Path(__file__).parents[1] / "README.md"
#: Families whose cost `benchmarks.nag_cost` reads, by the name of its result.
COSTS = {
    "Flux.1": "flux",
    "Stable Diffusion 3": "sd3",
    "SDXL": "sdxl",
    "SANA": "sana",
    "Wan": "wan",
    "Qwen-Image": "qwen-image",
}


def cost(result: str) -> str:
    """A guided step over a plain one, as last read on a CPU; empty where it has not been."""
    path = RESULTS / f"nag_cost-{result}-cpu.json"
    if not path.exists():
        return ""
    data = json.loads(path.read_text())["data"]
    plain, ours = data["no guidance"]["seconds"], data["NAG, ours"]["seconds"]
    return f"{statistics.median(mine / other for mine, other in zip(ours, plain, strict=True)):.2f}"


def table() -> str:
    families = nag.families()
    return families.markdown({"cost of a step": {name: cost(result) for name, result in COSTS.items()}})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--write", action="store_true", help="put it into the README")
    if not parser.parse_args().write:
        print(table())
        return
    text = README.read_text()
    README.write_text(re.sub(r"(?s)(?<=<!-- families -->\n).*?(?=<!-- end -->)", lambda _: f"\n{table()}\n\n", text))


if __name__ == "__main__":
    main()
