"""Decoding beside denoising: an autoencoder's call in a thread and stream of its own, against one after the other.

What is timed is what the engine does: some denoiser steps while the image of another request is decoded (`SideLane`).
"""

from __future__ import annotations

import threading
from typing import Any

import diffusers
import torch

from app.worker.devices.side_lane import SideLane
from benchmarks import report
from benchmarks.denoisers import MAKERS, SMALL, Draw
from benchmarks.gpu.arguments import parser, seconds_of

STEPS, ROUNDS = 4, 3
COLUMNS = ("what", "ms", "× one after the other")


def autoencoder(draw: Draw, *, small: bool) -> Any:
    """Returns the autoencoder of Flux.1 with random weights."""
    widths = (32, 32, 64, 64) if small else (128, 256, 512, 512)
    return draw.build(
        diffusers.AutoencoderKL,
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        block_out_channels=widths,
        layers_per_block=2,
        latent_channels=16,
    )


def main() -> None:
    arguments = parser(__doc__).parse_args()
    device, small = arguments.device, arguments.small
    draw = Draw(device, torch.float32 if small else torch.bfloat16, SMALL if small else 1)
    with torch.no_grad():
        work, vae = MAKERS["flux"](draw, not small), autoencoder(draw, small=small)
        latents, lane = draw(1, 16, 128 // draw.shrink, 128 // draw.shrink), SideLane(torch.device(device))

        def denoise() -> None:
            for _ in range(STEPS):
                work.step()

        def decode() -> Any:
            return vae.decode(latents).sample

        def beside() -> None:
            ended, failures = threading.Event(), []

            def note(outcome: Any) -> None:
                if isinstance(outcome, Exception):
                    failures.append(outcome)
                ended.set()

            lane.run(decode, note)
            denoise()
            ended.wait()
            if failures:
                raise failures[0]

        def in_turn() -> None:
            decode()
            denoise()

        seconds = {
            name: seconds_of(call, device, ROUNDS)
            for name, call in (
                (f"{STEPS} denoiser steps", denoise), ("decoding", decode), ("one after the other", in_turn),
                ("decoding beside the steps", beside),
            )
        }  # fmt: skip
    base = seconds["one after the other"]
    rows = [(name, f"{one * 1000:.1f}", f"{one / base:.2f}") for name, one in seconds.items()]
    title = f"Decoding of an image beside steps of {work.what}, {draw.dtype}"
    report.write("overlap", title, COLUMNS, rows, seconds, report.machine(device), folder=arguments.out)


if __name__ == "__main__":
    main()
