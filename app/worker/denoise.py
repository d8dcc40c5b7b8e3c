"""One batch through a pipeline: rows in, pixels out, each row guided by its own numbers."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from dataclasses import dataclass, field
from time import perf_counter, time
from typing import Any

import numpy as np
import torch

import nag
from app.catalog import Model
from app.jobs import ENDED_BEFORE_FIRST_STEP, NO_STEP_WITHIN, Applied, Guidance
from app.worker.batching import Row
from app.worker.compilation import compiled_calls
from app.worker.editing import Editing
from app.worker.loading import denoisers
from app.worker.pipelines import callbacks_of, cfg_arguments, step_arguments
from app.worker.previews import Previews
from app.worker.prompt_checks import PromptFinding, PromptTooLong, check_prompts
from app.worker.scales import scales_become_rows
from app.worker.tokens import TokenizerWatch, watch_tokenizers

__all__ = ["Denoised", "Encoding", "Hooks", "denoise", "shares_models"]

UNGUIDED = nag.NAGParams(scale=1.0, tau=1.0, alpha=0.0, end=0.0)  # what a row without NAG rides with

#: Wraps how a pipeline's copy encodes its prompts, for one call.
Encoding = Callable[[Any], AbstractContextManager[TokenizerWatch]]


@dataclass(frozen=True)
class Hooks:
    """Optional callbacks of one pipeline call. `on_step(steps done)` follows each denoiser step and may raise to leave
    the batch there; `on_denoised()` follows the last one, when only decoding is left and the denoiser is as it was;
    `on_recompile_limit()` is called when torch stops compiling a function of the denoiser.
    """

    on_step: Callable[[int], None] = lambda _: None
    on_denoised: Callable[[], object] = lambda: None
    previews: Previews | None = None
    encoding: Encoding = watch_tokenizers
    files: Mapping[str, bytes] = field(default_factory=dict)  # by name, what edits start from
    on_recompile_limit: Callable[[], None] = lambda: None


@dataclass(frozen=True)
class Denoised:
    """Pixels (N, H, W, 3), of videos (N, F, H, W, 3), float32 in [0, 1] or NaN, a row a picture or video.

    `applied` says for each row what guided it, `findings` what of its prompts was not read.
    """

    pixels: np.ndarray[Any, np.dtype[np.float32]]
    applied: tuple[Applied, ...]
    encode_ms: float
    denoise_ms: float
    decode_ms: float
    begun_at: float = 0.0  # Unix seconds
    findings: tuple[tuple[PromptFinding, ...], ...] = ()


def denoise(pipe: Any, entry: Model, rows: Sequence[Row], device: torch.device, hooks: Hooks | None = None) -> Denoised:
    """Run rows of one batch_key.

    Times are read at three seams of the one pipeline call, the device waited for at each: encode runs from the call
    to the denoiser's first forward (prompts, the guidance's included, and the first noise), denoise from there to the
    end of the last step, decode from there to the pixels in memory.

    Raises PromptTooLong before the first step.

    The call runs on a copy of the pipeline that shares its models, so that another may begin while it decodes; but not
    where the pipeline itself moves them.
    """
    hooks = hooks or Hooks()
    if shares_models(entry):
        pipe = _copy(pipe)
    requests = [row.request for row in rows]
    editing = Editing(requests, hooks.files) if requests[0].edit is not None else None
    if editing is not None:
        warm, pipe = pipe, editing.pipeline(pipe)
    params = [_params(request.nag) for request in requests]
    seams: dict[str, float] = {}
    findings: list[tuple[PromptFinding, ...]] = []

    def seam(name: str) -> None:
        if device.type == "cuda":
            torch.cuda.current_stream(device).synchronize()
        seams[name] = perf_counter() * 1000

    cfg = cfg_arguments(pipe, entry, requests)
    guiding: AbstractContextManager[nag.Guidance | None] = nullcontext()
    if any(numbers.is_active for numbers in params):
        guiding = nag.guide(
            pipe,
            negative_prompt=[request.nag.negative_prompt if request.nag is not None else "" for request in requests],
            scale=[numbers.scale for numbers in params],
            tau=[numbers.tau for numbers in params],
            alpha=[numbers.alpha for numbers in params],
            end=[numbers.end for numbers in params],
            scale_decay=[numbers.scale_decay for numbers in params],
            start=[numbers.start for numbers in params],
            method=[numbers.method for numbers in params],
        )
    with ExitStack() as stack:
        if entry.compile == "denoiser":
            stack.enter_context(compiled_calls(entry.id, hooks.on_recompile_limit))
        watch = stack.enter_context(hooks.encoding(pipe))
        guidance = stack.enter_context(guiding)
        made = stack.enter_context(scales_become_rows(cfg.get(entry.cfg, 1.0)))

        def begin_denoising() -> None:
            made()
            seam("encoded")
            findings.extend(_check(rows, watch))

        def step_done(_: Any, step: int, timestep: Any, __: dict[str, Any]) -> dict[str, Any]:  # noqa: ARG001
            # A scheduler of second order calls the denoiser twice per step.
            before, done = (requests[0].steps * calls // callbacks_of(pipe) for calls in (step, step + 1))
            if step + 1 == callbacks_of(pipe):
                stack.close()
                seam("denoised")
                hooks.on_denoised()
            if hooks.previews is not None and done > before:
                hooks.previews.step_done(done)
            hooks.on_step(done)
            return {}

        if hooks.previews is not None:
            stack.enter_context(hooks.previews.watching(pipe.scheduler))
        stack.enter_context(_before_first_forward(pipe, begin_denoising))
        begun_at = time()
        seam("begun")
        arguments = {
            "prompt": [request.prompt for request in requests],
            "generator": [torch.Generator(device).manual_seed(row.seed) for row in rows],
            "num_inference_steps": requests[0].num_inference_steps,
            "width": requests[0].width,
            "height": requests[0].height,
            "output_type": "np",
            **step_arguments(pipe, step_done),
            **cfg,
            **entry.call,
        }
        if editing is not None:
            arguments = editing.arguments(pipe, arguments)
        frames = requests[0].num_frames
        if frames is not None:
            arguments["num_frames"] = frames
        output = pipe(**arguments)
        pixels = _opaque(np.asarray(output.images if frames is None else output.frames, dtype=np.float32))
        seam("decoded")
    if hooks.previews is not None:
        hooks.previews.decoded(pixels)
    if editing is not None:
        pixels = editing.kept(pixels)
        if entry.offload == "model":
            warm.maybe_free_model_hooks()  # the pipeline of the call does not know of them
    # A pipeline that told of no last step decoded within what counts as its denoising.
    seams = {"encoded": seams["begun"], "denoised": seams["decoded"]} | seams
    shape = (requests[0].height, requests[0].width, 3)
    assert pixels.shape == (len(rows), *(() if frames is None else (frames,)), *shape), pixels.shape

    steps = guidance.guided_steps_by_params if guidance is not None else [0] * len(requests)
    return Denoised(
        pixels=pixels,
        applied=tuple(_applied(request.nag, guided > 0) for request, guided in zip(requests, steps, strict=True)),
        encode_ms=seams["encoded"] - seams["begun"],
        denoise_ms=seams["denoised"] - seams["encoded"],
        decode_ms=seams["decoded"] - seams["denoised"],
        begun_at=begun_at,
        findings=tuple(findings),
    )


def _check(rows: Sequence[Row], watch: TokenizerWatch) -> list[tuple[PromptFinding, ...]]:
    """Findings by row. Raises PromptTooLong for the strict jobs among the rows."""
    requests = [row.request for row in rows]
    guiding = [request.nag.negative_prompt if request.nag is not None else "" for request in requests]
    watch.assign(
        [request.prompt for request in requests], [request.negative_prompt or "" for request in requests], guiding
    )
    findings = [tuple(check_prompts(request, watch.readings)) for request in requests]
    too_long = {
        row.job.id: finding.message
        for row, found in zip(rows, findings, strict=True)
        for finding in found
        if finding.has_no_effect and row.request.strict
    }
    if too_long:
        raise PromptTooLong(too_long)
    return findings


def shares_models(entry: Model) -> bool:
    """Whether several calls may use the pipeline's models at once: offloaded ones come and go with a call."""
    return entry.offload == "none"


def _copy(pipe: Any) -> Any:
    """The same models under a pipeline and a scheduler of one's own: both keep the state of their call."""
    own = copy.copy(pipe)
    own.scheduler = copy.deepcopy(pipe.scheduler)
    return own


def _opaque(pixels: np.ndarray[Any, np.dtype[np.float32]]) -> np.ndarray[Any, np.dtype[np.float32]]:
    """Lays pixels (…, 4), as of Qwen-Image 2.1, over white; its text encoder sees transparent images so, too."""
    if pixels.shape[-1] != 4:
        return pixels
    alpha = pixels[..., 3:]
    return pixels[..., :3] * alpha + (1 - alpha)


def _params(asked: Guidance | None) -> nag.NAGParams:
    if asked is None:
        return UNGUIDED
    return nag.NAGParams(asked.scale, asked.tau, asked.alpha, asked.end, asked.scale_decay, asked.start, asked.method)


def _applied(asked: Guidance | None, reached: bool) -> Applied:
    """The numbers if guidance ran, else the reason that it did not; the numbers too if they are the reason."""
    if asked is None:
        return Applied(False, "not_requested")
    if asked.scale <= 1:
        return Applied(False, "scale_is_1")
    if asked.alpha <= 0:
        return Applied(False, "alpha_is_0")
    if asked.end <= 0:
        return Applied(False, "end_is_0")
    numbers = (asked.scale, asked.tau, asked.alpha, asked.end, asked.scale_decay, asked.start, asked.method)
    if reached:
        return Applied(True, None, *numbers)
    return Applied(False, NO_STEP_WITHIN if asked.start > 0 else ENDED_BEFORE_FIRST_STEP, *numbers)


@contextmanager
def _before_first_forward(pipe: Any, call: Callable[[], None]) -> Iterator[None]:
    """Call once, as the pipeline's denoiser is first entered."""
    with ExitStack() as undo:

        def watch(denoiser: Any) -> None:
            # In the place of the whole call: a hook would be compiled with the denoiser.
            found = denoiser._compiled_call_impl
            inner = found or denoiser._call_impl

            def first(*args: Any, **kwargs: Any) -> Any:
                undo.close()
                call()
                return inner(*args, **kwargs)

            undo.callback(setattr, denoiser, "_compiled_call_impl", found)
            denoiser._compiled_call_impl = first

        for denoiser in denoisers(pipe):
            watch(denoiser)
        yield
