"""What a guided denoiser step costs against no guidance, CFG and the authors' layout, on the same work in one run.

python -m benchmarks.nag_cost --family flux
python -m benchmarks.nag_cost --family flux --device cuda --double-blocks 19 --single-blocks 38
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from contextlib import nullcontext
from typing import Any

import torch
from diffusers import FlowMatchEulerDiscreteScheduler, FluxPipeline, FluxTransformer2DModel
from torch import Tensor
from tqdm import tqdm

import nag
from benchmarks import report

IMAGE_TOKENS, TEXT_TOKENS = 4096, 512


class Work:
    """One denoiser step of Flux at its true width, with few blocks and random weights."""

    def __init__(
        self, double_blocks: int, single_blocks: int, device: str, dtype: torch.dtype, image_side: int
    ) -> None:
        torch.manual_seed(0)
        with torch.device(device):
            torch.set_default_dtype(dtype)
            transformer = FluxTransformer2DModel(num_layers=double_blocks, num_single_layers=single_blocks).eval()
            torch.set_default_dtype(torch.float32)
        empty: dict[str, Any] = dict.fromkeys(("vae", "text_encoder", "tokenizer", "text_encoder_2", "tokenizer_2"))
        self.pipe = FluxPipeline(scheduler=FlowMatchEulerDiscreteScheduler(), transformer=transformer, **empty)
        self.transformer = transformer

        def draw(*shape: int) -> Tensor:
            return torch.randn(*shape).to(device, dtype)

        self.latents = draw(1, image_side**2, 64)
        self.prompts, self.pooled = (
            (draw(1, TEXT_TOKENS, 4096), draw(1, TEXT_TOKENS, 4096)),
            (draw(1, 768), draw(1, 768)),
        )
        self.image_ids = FluxPipeline._prepare_latent_image_ids(1, image_side, image_side, device, dtype)

    def step(self, prompt: int = 0) -> Tensor:
        """The denoiser's output (1, T, 64) for the positive (0) or negative (1) prompt."""
        out: Tensor = self.transformer(
            hidden_states=self.latents,
            timestep=torch.ones(1, device=self.latents.device, dtype=self.latents.dtype),
            encoder_hidden_states=self.prompts[prompt],
            pooled_projections=self.pooled[prompt],
            txt_ids=self.image_ids.new_zeros(TEXT_TOKENS, 3),
            img_ids=self.image_ids,
            return_dict=False,
        )[0]
        return out

    def guided(self, *, reference: bool = False, merged: bool = True) -> Tensor:
        """A step under NAG; a chosen attention backend makes the packed form attend twice instead of merging."""
        if not merged:
            self.transformer.set_attention_backend("native")
        try:
            with nag.guide(
                self.pipe,
                negative_prompt_embeds=self.prompts[1],
                negative_pooled_prompt_embeds=self.pooled[1],
                reference=reference,
            ):
                return self.step()
        finally:
            self.transformer.reset_attention_backend()

    def cfg(self) -> Tensor:
        return torch.lerp(self.step(1), self.step(0), 3.0)


def times_s(ways: dict[str, Callable[[], Tensor]], rounds: int, device: str) -> dict[str, list[float]]:
    """Seconds a step, the ways in turn within each round, after one round that does not count."""
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    with tqdm(total=(rounds + 1) * len(ways), unit="step") as bar:
        for round_ in range(rounds + 1):
            for name, way in ways.items():
                begun = time.perf_counter()
                way()
                if device.startswith("cuda"):
                    torch.cuda.synchronize()
                if round_:
                    seconds[name].append(time.perf_counter() - begun)
                bar.update()
    return seconds


def float32_difference(device: str) -> float:
    """Largest relative difference of the merged form to two plain attention calls, one step in float32."""
    work = Work(1, 1, device, torch.float32, image_side=16)
    merged, called = work.guided(), work.guided(merged=False)
    return float((merged - called).norm() / called.norm())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--family", choices=["flux"], default="flux")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--double-blocks", type=int, default=1)
    parser.add_argument("--single-blocks", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=5)
    arguments = parser.parse_args()
    blocks = (arguments.double_blocks, arguments.single_blocks)
    with torch.no_grad(), torch.cuda.device(arguments.device) if arguments.device != "cpu" else nullcontext():
        difference = float32_difference(arguments.device)
        work = Work(*blocks, arguments.device, torch.bfloat16, image_side=int(IMAGE_TOKENS**0.5))
        ways: dict[str, Callable[[], Tensor]] = {
            "no guidance": work.step,
            "CFG": work.cfg,
            "NAG, authors' layout": lambda: work.guided(reference=True),
            "NAG, packed, two attention calls": lambda: work.guided(merged=False),
            "NAG, packed, merged by log-sum-exp": work.guided,
        }
        seconds = times_s(ways, arguments.rounds, arguments.device)

    def ratios(name: str) -> list[float]:
        return [mine / plain for mine, plain in zip(seconds[name], seconds["no guidance"], strict=True)]

    columns = ["step", "median s", "× no guidance: median", "min–max"]
    rows = [
        [
            name,
            f"{statistics.median(values):.3f}",
            f"{statistics.median(ratios(name)):.2f}",
            f"{min(ratios(name)):.2f}–{max(ratios(name)):.2f}",
        ]
        for name, values in seconds.items()
    ]
    title = (
        f"Cost of a step, Flux width 3072, {blocks[0]} double + {blocks[1]} single blocks, {IMAGE_TOKENS} image + "
        f"{TEXT_TOKENS} text tokens, bfloat16, {arguments.rounds} rounds in turn. "
        f"Merged against two calls in float32: {difference:.1e} relative."
    )
    name = f"nag_cost-{arguments.family}-{arguments.device.split(':')[0]}"
    report.write(
        name, title, columns, rows, seconds | {"float32_difference": difference}, report.machine(arguments.device)
    )


if __name__ == "__main__":
    main()
