"""One resumable training loop for every stage: warm-up and cosine decay, an averaged copy, checkpoints."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.optim.swa_utils import AveragedModel
from tqdm import tqdm

#: Between two checkpoints.
SAVE_EVERY_S = 60.0


@dataclass(frozen=True)
class Schedule:
    """How long and how fast a stage learns."""

    steps: int
    learning_rate: float
    warmup_steps: int = 100
    average_decay: float = 0.998
    weight_decay: float = 0.01
    #: Whether Muon takes convolutions beside matrices.
    convolutions: bool = True
    #: Kernels smaller on a side, as at a network's two ends, are AdamW's.
    muon_min: int = 64

    def rate(self, step: int) -> float:
        warm = min(1.0, (step + 1) / self.warmup_steps)
        return self.learning_rate * warm * (0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * step / self.steps)))


def step_generator(seed: int, step: int) -> torch.Generator:
    """Returns the random source of one step, so that a resumed run draws what an unbroken one would."""
    return torch.Generator().manual_seed(seed * 1_000_003 + step)


def train(
    name: str,
    modules: nn.ModuleDict,
    loss: Callable[[torch.Generator], torch.Tensor],
    schedule: Schedule,
    checkpoint: Path,
    seed: int,
) -> None:
    """Trains `modules` in place and leaves the averaged weights in them.

    Resumes from `checkpoint` when it is there; a finished one is loaded and nothing is trained.
    """
    averaged = AveragedModel(modules, multi_avg_fn=_moving_average(schedule.average_decay))
    optimizers = _optimizers(modules, schedule)
    first = 0
    if checkpoint.exists():
        state = torch.load(checkpoint, map_location="cpu", weights_only=True)
        modules.load_state_dict(state["weights"])
        averaged.load_state_dict(state["averaged"])
        first = state["step"]
        if first < schedule.steps:
            for optimizer, kept in zip(optimizers, state["optimizers"], strict=True):
                optimizer.load_state_dict(kept)

    def save(step: int) -> None:
        checkpoint.parent.mkdir(parents=True, exist_ok=True)
        partial = checkpoint.with_suffix(".part")
        torch.save(
            {
                "weights": modules.state_dict(),
                "averaged": averaged.state_dict(),
                "optimizers": [optimizer.state_dict() for optimizer in optimizers],
                "step": step,
            },
            partial,
        )
        partial.replace(checkpoint)

    modules.train()
    saved_at = time.monotonic()
    smooth = math.nan
    with tqdm(total=schedule.steps, initial=first, desc=name, mininterval=5.0, unit="step") as bar:
        for step in range(first, schedule.steps):
            for group in (group for optimizer in optimizers for group in optimizer.param_groups):
                group["lr"] = schedule.rate(step)
            value = loss(step_generator(seed, step))
            modules.zero_grad(set_to_none=True)
            value.backward()  # type: ignore[no-untyped-call]
            nn.utils.clip_grad_norm_(modules.parameters(), 1.0)
            for optimizer in optimizers:
                optimizer.step()
            averaged.update_parameters(modules)
            smooth = float(value.detach()) if math.isnan(smooth) else 0.98 * smooth + 0.02 * float(value.detach())
            bar.set_postfix(loss=f"{smooth:.4f}", refresh=False)
            bar.update()
            if time.monotonic() - saved_at >= SAVE_EVERY_S or step + 1 == schedule.steps:
                save(step + 1)
                saved_at = time.monotonic()
    modules.load_state_dict(averaged.module.state_dict())
    modules.eval()


class KernelMuon(torch.optim.Muon):
    """Muon (Jordan 2024), to which a convolution's kernel is a matrix of outputs by everything it sums over."""

    def __init__(self, kernels: list[nn.Parameter], learning_rate: float, weight_decay: float) -> None:
        self._kernels = kernels
        flat = [nn.Parameter(each.detach().flatten(1)) for each in kernels]  # the same memory
        super().__init__(flat, lr=learning_rate, weight_decay=weight_decay, adjust_lr_fn="match_rms_adamw")

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]
        flat = [each for group in self.param_groups for each in group["params"]]
        for matrix, kernel in zip(flat, self._kernels, strict=True):
            matrix.grad = None if kernel.grad is None else kernel.grad.flatten(1)
        super().step(closure)  # type: ignore[no-untyped-call]


def _optimizers(modules: nn.ModuleDict, schedule: Schedule) -> list[torch.optim.Optimizer]:
    """Muon for the kernels inside the network, which a short training gains most from; AdamW for everything else."""
    embeddings = {id(module.weight) for module in modules.modules() if isinstance(module, nn.Embedding)}
    trained = [parameter for parameter in modules.parameters() if parameter.requires_grad]
    kernels = [
        each
        for each in trained
        if each.ndim in ((2, 4, 5) if schedule.convolutions else (2,))
        and min(len(each), each[0].numel()) >= schedule.muon_min
        and id(each) not in embeddings
    ]
    inside = {id(each) for each in kernels}
    rest = [each for each in trained if id(each) not in inside]
    rate, decay = schedule.learning_rate, schedule.weight_decay
    optimizers: list[torch.optim.Optimizer] = []
    if rest:
        optimizers.append(torch.optim.AdamW(rest, lr=rate, betas=(0.9, 0.98), weight_decay=decay, fused=True))
    if kernels:
        optimizers.append(KernelMuon(kernels, rate, decay))
    return optimizers


def _moving_average(decay: float) -> Callable[[Any, Any, Any], None]:
    """Returns an exponential average that forgets the first weights quickly: the decay grows to its full value."""

    @torch.no_grad()
    def update(averaged: list[torch.Tensor], current: list[torch.Tensor], count: torch.Tensor | int) -> None:
        torch._foreach_lerp_(averaged, current, 1 - min(decay, (1 + int(count)) / (10 + int(count))))

    return update
