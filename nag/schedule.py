"""The place of a denoiser call in the noise schedule, on one scale for every scheduler."""

from __future__ import annotations

from typing import Any

import torch

__all__ = ["continues_step", "scheduler_of", "timesteps_total", "training_timestep"]

#: Schedulers that count timesteps in units of their own (EDM and continuous ones ¼ log σ, IPNDM an angle) stay below.
OTHER_UNITS_MAX = 2.0


def scheduler_of(pipe: Any) -> Any:
    """Returns the scheduler of a pipeline; None if its loop keeps its own noise levels."""
    return getattr(pipe, "scheduler", None)


def timesteps_total(scheduler: Any) -> float:
    """Returns how many timesteps the scheduler counts in training; 1000 without a scheduler."""
    return 1000.0 if scheduler is None else float(scheduler.config.get("num_train_timesteps", 1000))


def training_timestep(scheduler: Any, timestep: float) -> float:
    """Converts a timestep to the scale of training, which falls from `num_train_timesteps` to 0.

    A scheduler with other units has no such scale. Its steps are spread evenly over it, as trailing timesteps are. One
    that was trained on timesteps from 1 to 0 has.

    Args:
        scheduler: of a diffusers pipeline, with its timesteps set.
        timestep: the scheduler's own, as it is passed to the denoiser.

    """
    schedule, total = getattr(scheduler, "timesteps", None), timesteps_total(scheduler)
    if total <= OTHER_UNITS_MAX or schedule is None or len(schedule) == 0 or float(schedule.max()) > OTHER_UNITS_MAX:
        return timestep
    step = int(torch.argmin((schedule - timestep).abs()))
    return total * (1 - step / len(schedule)) - 1


def continues_step(scheduler: Any) -> bool:
    """Whether the next denoiser call is the second one of a step (Heun, KDPM2)."""
    return getattr(scheduler, "order", 1) == 2 and not getattr(scheduler, "state_in_first_order", True)
