"""One image or video of a job: a diffusers pipeline call of its own, which meets others at the shared modules."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, ExitStack, nullcontext
from dataclasses import dataclass, field, fields
from time import perf_counter, time
from typing import Any

import numpy as np
import torch

import nag
from app.jobs import ENDED_BEFORE_FIRST_STEP, NO_STEP_WITHIN, AppliedGuidance, Guidance, InputFiles, Job
from app.worker.engine.adapters import CALL_LORAS
from app.worker.engine.calls import Coroutine
from app.worker.engine.job_inputs import JobInputs
from app.worker.engine.pipelines import callbacks_of, cfg_arguments, listed, step_arguments
from app.worker.engine.shared_model import SharedModel
from app.worker.engine.shared_modules import CALL_SIDE_PX
from app.worker.engine.step_cache import CALL_NUMBER
from app.worker.outputs.previews import Previews, Sketch
from app.worker.outputs.video import Sound
from app.worker.prompts.encoder_memo import EncoderMemo, memoize_encoders
from app.worker.prompts.prompt_checks import PromptTooLong, check_prompts
from app.worker.prompts.tokens import TokenizerWatch, watch_tokenizers
from app.worker.protocol import JobCancelled, JobControl
from app.worker.recorder import Recorder

__all__ = ["CallResult", "PipelineCall", "call_module", "run_calls"]

Pixels = np.ndarray[Any, np.dtype[np.float32]]


@dataclass
class CallResult:
    """What one pipeline call made, and how.

    Attributes:
        seed: of its generator.
        pixels: (H, W, 3), of a video (F, H, W, 3), float32 in [0, 1] or NaN.
        sound: of a video, if the model makes any.
        applied: the guidance that was in force.
        warnings: about what was not read of its prompts.
        batch_size: the most images or videos, itself included, that shared a denoiser call with it.
        begun_at: Unix seconds.
        first_step_at: Unix seconds, when its first denoiser call began.
        encode_ms: until it waits for its first denoiser call,
        denoise_ms: from there to the end of its last step, and
        decode_ms: from there to the pixels in main memory; waiting for other calls included.

    """

    seed: int
    pixels: Pixels = field(default_factory=lambda: np.zeros(0, dtype=np.float32))
    sound: Sound | None = None
    applied: AppliedGuidance = field(default_factory=lambda: AppliedGuidance(False))
    warnings: tuple[str, ...] = ()
    batch_size: int = 0
    begun_at: float = 0.0
    first_step_at: float = 0.0
    encode_ms: float = 0.0
    denoise_ms: float = 0.0
    decode_ms: float = 0.0


class PipelineCall(Coroutine):
    """A coroutine that makes image or video `index` of a job on a copy of the model's pipeline.

    Its error is JobCancelled if the job was, PromptTooLong before the first step of a strict job whose prompt the model
    does not read whole, or whatever the model raised.

    Attributes:
        number: rises in the order in which the calls are admitted.
        steps_done: denoising steps so far, of the request's steps.

    """

    def __init__(
        self, number: int, model: SharedModel, job: Job, index: int, files: InputFiles, control: JobControl,
        device: torch.device, memo: EncoderMemo, sketch: Sketch | None, recorder: Recorder,
    ) -> None:  # fmt: skip
        super().__init__(self._generate)
        self.number, self.model, self.job, self.index, self.control = number, model, job, index, control
        # The n images of a job use seed, seed + 1, …; within what a generator takes.
        self.made = CallResult((job.request.seed + index) % 2**64)
        self.steps_done = 0
        self._files, self._device, self._memo, self._sketch, self._recorder = files, device, memo, sketch, recorder
        self._watch: TokenizerWatch | None = None
        self._times_ms: dict[str, float] = {}

    @property
    def cost(self) -> int:
        """What the module call that it waits for costs, in units of Generation.cost: pixels of all its rows."""
        request = self.job.request
        return len(self.suspended.rows) * request.width * request.height * (request.num_frames or 1)

    def _switch(self, switch: Any, *values: Any) -> None:
        super()._switch(switch, *values)
        is_at_denoiser = self.suspended is not None and self.suspended.module.kind == "denoiser"
        if is_at_denoiser and "encoded" not in self._times_ms:
            self._note("encoded")
            try:
                self.made.warnings = self._check_prompts()
            except PromptTooLong as error:
                self.throw(error)

    def _generate(self) -> None:
        request, model = self.job.request, self.model
        CALL_LORAS.set(request.loras)
        CALL_NUMBER.set(self.number)
        CALL_SIDE_PX.set(max(request.width, request.height))
        pipe = model.own_pipeline(request.task)
        inputs = JobInputs(request, self._files)
        self._watch = watch_tokenizers(pipe)
        weights = model.text_weights(request.loras)
        memoize_encoders(pipe, model.entry.id, weights, self._memo, self._recorder, self._watch)
        previews = None
        if self._sketch is not None:
            previews = Previews(self._sketch, self.job, self.index, self.control.on_preview)

        def step_done(_: Any, step: int, timestep: Any, __: dict[str, Any]) -> dict[str, Any]:  # noqa: ARG001
            # A scheduler of second order calls the denoiser twice per step.
            before, self.steps_done = self.steps_done, request.steps * (step + 1) // callbacks_of(pipe)
            if step + 1 == callbacks_of(pipe):
                self._note("denoised")
            if previews is not None and self.steps_done > before:
                previews.step_done(self.steps_done)
            return {}

        arguments = {
            **listed(
                pipe,
                prompt=request.prompt,
                generator=torch.Generator(self._device).manual_seed(self.made.seed),
            ),
            "num_inference_steps": request.num_inference_steps,
            "width": request.width,
            "height": request.height,
            "output_type": "np",
            **step_arguments(pipe, step_done),
            **cfg_arguments(pipe, model.entry, request),
            **model.entry.call,
        }
        if request.num_frames is not None:
            arguments["num_frames"] = request.num_frames
        arguments = inputs.arguments(pipe, arguments)
        with ExitStack() as stack:
            stack.callback(model.forget_call, self.number)
            guidance = stack.enter_context(_guided(pipe, request.nag))
            if previews is not None:
                stack.enter_context(previews.watching(pipe.scheduler))
            self.made.begun_at = time()
            self._note("begun")
            output = pipe(**arguments)
            frames = output.images if request.num_frames is None else output.frames
            pixels = _opaque(np.asarray(frames, dtype=np.float32)[0])
            self.made.sound = _sound(pipe, output)
            self._note("decoded")
            if previews is not None:
                previews.decoded(pixels)
        self.made.pixels = inputs.blend(pixels)
        assert pixels.shape[-3:] == (request.height, request.width, 3), pixels.shape
        self.made.applied = _applied(request.nag, guidance is not None and guidance.guided_steps > 0)
        # A pipeline that never called back after its last step decoded within what counts as its denoising.
        times_ms = {"encoded": self._times_ms["begun"], "denoised": self._times_ms["decoded"]} | self._times_ms
        self.made.encode_ms = times_ms["encoded"] - times_ms["begun"]
        self.made.denoise_ms = times_ms["denoised"] - times_ms["encoded"]
        self.made.decode_ms = times_ms["decoded"] - times_ms["denoised"]

    def _note(self, name: str) -> None:
        self._times_ms[name] = perf_counter() * 1000

    def _check_prompts(self) -> tuple[str, ...]:
        """Returns what the model does not read of the prompts. Raises PromptTooLong for a strict job."""
        request, watch = self.job.request, self._watch
        assert watch is not None
        guiding = request.nag.negative_prompt if request.nag is not None else ""
        watch.assign([request.prompt], [request.negative_prompt or ""], [guiding])
        return tuple(check_prompts(request, watch.readings))


def call_module(calls: Sequence[PipelineCall]) -> list[Any]:
    """Calls the shared module that these calls, suspended with one key, wait for; returns each one's part."""
    module, begun_at = calls[0].suspended.module, time()
    outputs: list[Any] = module.run([call.suspended for call in calls])
    if module.kind == "denoiser":
        for call in calls:
            call.made.batch_size = max(call.made.batch_size, len(calls))
            call.made.first_step_at = call.made.first_step_at or begun_at
    return outputs


def run_calls(
    calls: Sequence[PipelineCall], run: Callable[[Sequence[PipelineCall]], Sequence[Any]] = call_module
) -> None:
    """Runs pipeline calls to their end, joined wherever they can be. Raises the first error of any.

    Denoiser calls go last, so that those of requests with more to encode join. `run` calls the module that a group
    waits for, as `call_module` does, and may return an exception for a call in place of its part.
    """
    # Pipelines turn gradients off and restore what was before, in whatever order they end.
    with torch.no_grad():
        try:
            for call in calls:
                call.start()
            while waiting := [call for call in calls if not call.has_ended]:
                leader = min(waiting, key=lambda call: call.suspended.module.kind == "denoiser")
                group = [call for call in waiting if call.suspended.key == leader.suspended.key]
                for call, output in zip(group, run(group), strict=True):
                    (call.throw if isinstance(output, Exception) else call.resume)(output)
        finally:
            for call in calls:
                if not call.has_ended:  # left by an error: it must not turn gradients off when it is collected
                    call.throw(JobCancelled())
    for call in calls:
        if call.error is not None:
            raise call.error


def _guided(pipe: Any, guidance: Guidance | None) -> AbstractContextManager[nag.Guidance | None]:
    numbers = _numbers(guidance)
    if guidance is None or not nag.NAGParams(**numbers).is_active:
        return nullcontext()
    return nag.guide(pipe, negative_prompt=guidance.negative_prompt, **numbers)


def _opaque(pixels: Pixels) -> Pixels:
    """Lays pixels (…, 4), as of Qwen-Image 2.1, over white; its text encoder sees transparent images so, too."""
    if pixels.shape[-1] != 4:
        return pixels
    alpha = pixels[..., 3:]
    return pixels[..., :3] * alpha + (1 - alpha)


def _sound(pipe: Any, output: Any) -> Sound | None:
    """Returns the sound that LTX-2's vocoder made for the video, (1, channels, samples); None for other models."""
    samples, vocoder = getattr(output, "audio", None), getattr(pipe, "vocoder", None)
    if samples is None or vocoder is None:
        return None
    return Sound(samples[0].float().cpu().numpy(), vocoder.config.output_sampling_rate)


def _numbers(guidance: Guidance | None) -> dict[str, Any]:
    """Returns the fields of nag.NAGParams, which `nag.guide` and AppliedGuidance have too."""
    return {} if guidance is None else {part.name: getattr(guidance, part.name) for part in fields(nag.NAGParams)}


def _applied(guidance: Guidance | None, has_guided: bool) -> AppliedGuidance:
    """Returns the numbers if guidance ran, otherwise the reason that it did not; both if the numbers are the reason."""
    if guidance is None:
        return AppliedGuidance(False, "not_requested")
    if guidance.scale <= 1:
        return AppliedGuidance(False, "scale_is_1")
    if guidance.alpha <= 0:
        return AppliedGuidance(False, "alpha_is_0")
    if guidance.end <= 0:
        return AppliedGuidance(False, "end_is_0")
    if has_guided:
        return AppliedGuidance(True, None, **_numbers(guidance))
    reason = NO_STEP_WITHIN if guidance.start > 0 else ENDED_BEFORE_FIRST_STEP
    return AppliedGuidance(False, reason, **_numbers(guidance))
