"""`python -m training MODEL`: trains an embedded model from nothing to a pipeline folder, resuming where it stopped."""

from __future__ import annotations

import argparse
from contextlib import nullcontext
from pathlib import Path

import torch
from torch.nn.attention import SDPBackend, sdpa_kernel

from training.recipe import STAGES, run
from training.recipes import RECIPES


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m training", description=__doc__)
    parser.add_argument("model", choices=sorted(RECIPES))
    parser.add_argument(
        "--work", type=Path, default=Path(".train"), help="checkpoints; delete a stage's file to train it again"
    )
    parser.add_argument("--out", type=Path, default=Path("app/builtin"), help="folder to write the pipelines into")
    parser.add_argument("--start", type=Path, help="a pipeline folder whose weights the training starts from")
    parser.add_argument(
        "--no-compile",
        action="store_true",
        help="run the denoiser as it is: compiling takes minutes for each shape on a slow processor",
    )
    parser.add_argument("--stage", choices=STAGES, default="export", help="the last stage to run")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    arguments = parser.parse_args()
    # Matrix products in bfloat16 where the hardware has them; sums, norms and weights stay float32.
    torch.set_float32_matmul_precision("medium")
    torch.backends.mkldnn.conv.fp32_precision = "bf16"  # type: ignore[attr-defined]  # missing from its stub
    # The plain kernel: several times faster than the fused one for short sequences of narrow heads on a CPU.
    with sdpa_kernel(SDPBackend.MATH) if arguments.device == "cpu" else nullcontext():
        run(
            RECIPES[arguments.model],
            work=arguments.work / arguments.model,
            out=arguments.out,
            last_stage=arguments.stage,
            seed=arguments.seed,
            device=torch.device(arguments.device),
            start=arguments.start,
            compiled=not arguments.no_compile,
        )


if __name__ == "__main__":
    main()
