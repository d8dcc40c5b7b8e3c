"""One batch through a pipeline: rows in, pixels out, each row guided by its own numbers."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from time import perf_counter
from typing import Any

import numpy as np
import torch

import nag
from app.catalog import Model
from app.jobs import Applied, Guidance
from app.worker.batching import Row
from app.worker.pipelines import cfg_arguments, step_arguments, steps_of

__all__ = ["Denoised", "denoise"]

DENOISERS = ("unet", "transformer", "transformer_2")
UNGUIDED = nag.NAGParams(scale=1.0, tau=1.0, alpha=0.0, end=0.0)  # what a row without NAG rides with


@dataclass(frozen=True)
class Denoised:
    """Pixels (N, H, W, 3), of videos (N, F, H, W, 3), float32 in [0, 1] or NaN, a row a picture or video.

    `applied` says for each row what guided it.
    """

    pixels: np.ndarray[Any, np.dtype[np.float32]]
    applied: tuple[Applied, ...]
    encode_ms: float
    denoise_ms: float
    decode_ms: float


def denoise(
    pipe: Any,
    entry: Model,
    rows: Sequence[Row],
    device: torch.device,
    on_step: Callable[[int], None] = lambda _: None,
) -> Denoised:
    """Run rows of one batch_key. `on_step(steps done)` follows each step and may raise to leave the batch there.

    Times are read at three seams of the one pipeline call, the device waited for at each: encode runs from the call
    to the denoiser's first forward (prompts, the guidance's included, and the first noise), denoise from there to the
    end of the last step, decode from there to the pixels in memory.
    """
    requests = [row.request for row in rows]
    params = [_params(request.nag) for request in requests]
    seams: dict[str, float] = {}
    first_timestep: list[float] = []

    def seam(name: str) -> None:
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        seams[name] = perf_counter() * 1000

    def step_done(running: Any, step: int, timestep: Any, _: dict[str, Any]) -> dict[str, Any]:
        if step == 0:
            first_timestep.append(float(timestep))
        if step == steps_of(running) - 1:
            seam("denoised")
        on_step(step + 1)
        return {}

    guiding: AbstractContextManager[nag.Guidance | None] = nullcontext()
    if any(each.guides for each in params):
        guiding = nag.guide(
            pipe,
            negative_prompt=[request.nag.negative_prompt if request.nag is not None else "" for request in requests],
            scale=[each.scale for each in params],
            tau=[each.tau for each in params],
            alpha=[each.alpha for each in params],
            end=[each.end for each in params],
        )
    with guiding as guidance, _before_first_forward(pipe, lambda: seam("encoded")):
        seam("begun")
        arguments = {
            "prompt": [request.prompt for request in requests],
            "generator": [torch.Generator(device).manual_seed(row.seed) for row in rows],
            "num_inference_steps": requests[0].num_inference_steps,
            "width": requests[0].width,
            "height": requests[0].height,
            "output_type": "np",
            **step_arguments(pipe, step_done),
            **cfg_arguments(entry, requests),
            **entry.call,
        }
        frames = requests[0].num_frames
        if frames is not None:
            arguments["num_frames"] = frames
        made = pipe(**arguments)
        pixels = np.asarray(made.images if frames is None else made.frames, dtype=np.float32)
        seam("decoded")
    shape = (requests[0].height, requests[0].width, 3)
    assert pixels.shape == (len(rows), *(() if frames is None else (frames,)), *shape), pixels.shape

    steps_guided = guidance.guided_steps if guidance is not None else 0
    timesteps_total = float(pipe.scheduler.config.get("num_train_timesteps", 1000))
    return Denoised(
        pixels=pixels,
        applied=tuple(
            # Timesteps fall, so a row that guidance did not reach at the first step it never reached.
            _applied(request.nag, steps_guided > 0 and each.active(first_timestep[0], timesteps_total))
            for request, each in zip(requests, params, strict=True)
        ),
        encode_ms=seams["encoded"] - seams["begun"],
        denoise_ms=seams["denoised"] - seams["encoded"],
        decode_ms=seams["decoded"] - seams["denoised"],
    )


def _params(asked: Guidance | None) -> nag.NAGParams:
    if asked is None:
        return UNGUIDED
    return nag.NAGParams(scale=asked.scale, tau=asked.tau, alpha=asked.alpha, end=asked.end)


def _applied(asked: Guidance | None, reached: bool) -> Applied:
    """The echo: the numbers where guidance ran, else the reason it did not."""
    if asked is None:
        return Applied(False, "not_requested")
    if asked.scale <= 1:
        return Applied(False, "scale_is_1")
    if asked.alpha <= 0:
        return Applied(False, "alpha_is_0")
    if not reached:
        return Applied(False, "end_is_0")
    return Applied(True, None, asked.scale, asked.tau, asked.alpha, asked.end)


@contextmanager
def _before_first_forward(pipe: Any, call: Callable[[], None]) -> Iterator[None]:
    """Call once, as the pipeline's denoiser is first entered."""
    # Some have two, for the early and the late steps, and either may be the first or the only one.
    denoisers = [found for name in DENOISERS if (found := getattr(pipe, name, None)) is not None]
    handles: list[torch.utils.hooks.RemovableHandle] = []

    def first(*_: Any) -> None:
        while handles:
            handles.pop().remove()
        call()

    handles.extend(each.register_forward_pre_hook(first) for each in denoisers)
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
