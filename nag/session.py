"""What one `guide` knows: the negative prompt, each prompt's numbers, the pipeline call and the step under way."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from nag.errors import InvalidParameter, NAGError, UnsupportedPipeline
from nag.negative import Negative
from nag.params import NAGParams
from nag.run import Guidance, Run, Step

__all__ = ["Guidance", "Negative", "Run", "Session", "Step"]


@dataclass
class Session:
    """The state shared by the hooks of one `guide`; `step` is set only while the denoiser runs guided."""

    params: tuple[NAGParams, ...]
    prompts: Sequence[str] | None
    given: Negative | None
    timesteps_total: float
    guidance: Guidance
    encode: Callable[[Sequence[str], dict[str, Any]], Negative] | None = None
    run: Run | None = None
    in_call: bool = False  # a pipeline calls the denoiser, and its settings tell how it lays out its rows
    # Of the embeddings that calls for the prompt and CFG's other calls bring; see `conditional`.
    positive_address: int | None = None
    positive_timestep: Tensor | float = 0.0
    other_address: int | None = None
    step: Step | None = field(default=None, repr=False)

    def prompts_encoded(self, arguments: dict[str, Any]) -> None:
        """Called when the pipeline has encoded a prompt: encodes the negative the same way.

        Pipelines encode their prompt first; what they encode before the denoiser runs is CFG's own negative prompt.

        Raises:
            InvalidParameter: the values given per prompt are not as many as the prompts.

        """
        if self.run is not None and not self.run.used:
            return
        prompt = arguments.get("prompt")
        embeds = arguments.get("prompt_embeds", arguments.get("prompt_embeds_t5"))
        prompts = len(embeds) if embeds is not None else 1 if isinstance(prompt, str) else len(prompt or ())
        self._check_count("negative_prompt", len(self.prompts) if self.prompts is not None else 1, prompts)
        self._check_count("negative_prompt_embeds", len(self.given.embeds) if self.given is not None else 1, prompts)
        self._check_count("scale, tau, alpha, end, anneal", len(self.params), prompts)
        negative = self.given
        if negative is None and self.encode is not None and self.prompts is not None:
            negative = self.encode(self.prompts, arguments)
        assert negative is not None
        images = int(arguments.get("num_images_per_prompt") or arguments.get("num_videos_per_prompt") or 1)
        self.begin_call()
        self.run = Run(prompts, images, negative, bool(arguments.get("do_classifier_free_guidance")))

    def begin_call(self) -> None:
        """Called when the pipeline starts on a new call."""
        self.end_call()
        self.in_call = True

    def end_call(self) -> None:
        """Called when the pipeline is done: what calls the denoiser now is not it."""
        self.run = self.positive_address = self.other_address = None
        self.in_call = False

    def run_of(self, rows: int) -> Run:
        """The pipeline call under way.

        A prompt a row is counted where the denoiser is called by hand, or by a pipeline that had nothing to encode.

        Raises:
            NAGError: called by hand with a negative prompt that nobody has encoded.

        """
        if self.run is None or (not self.in_call and self.run.prompts != rows):
            if self.given is None:
                raise NAGError(
                    "the negative prompt is encoded when the pipeline encodes its own, and it has encoded none; "
                    "give negative_prompt_embeds"
                )
            for name, count in (("negative_prompt_embeds", len(self.given.embeds)), ("scale", len(self.params))):
                self._check_count(name, count, rows)
            self.run = Run(rows, 1, self.given)
        self.run.used = True
        return self.run

    def conditional(self, embeds: Tensor, timestep: Tensor | float) -> bool:
        """Whether this call denoises for the prompt itself, in a family that runs CFG as calls of their own.

        Every such pipeline denoises for the prompt first, and brings the same embeddings to each of its steps. Other
        embeddings at the same timestep are CFG's unconditional ones; at another, a callback has replaced the prompt's.
        """
        if not self.in_call:
            return True
        address = embeds.data_ptr()
        if address == self.other_address:
            return False
        known = self.positive_address in (None, address)
        if not known and bool(torch.all(torch.as_tensor(timestep == self.positive_timestep))):
            self.other_address = address
            return False
        self.positive_address, self.positive_timestep = address, timestep
        return True

    def plan(self, embeds: Tensor, rows: slice, timestep: Callable[[], float], frames: int = 1) -> Step | None:
        """The step for the guided `rows` of a call that brings `embeds` (B, L, C); None where nothing is guided.

        frames: rows of one picture, side by side.

        Raises:
            UnsupportedPipeline: the rows are not prompts × images, so which row is whose cannot be told.

        """
        count, rest = divmod(rows.stop - rows.start, frames)
        run = self.run_of(count)
        if rest or run.prompts * run.images_per_prompt != count:
            raise UnsupportedPipeline(
                f"the denoiser got {count} guided rows for {run.prompts} prompts of {run.images_per_prompt} images: "
                "this pipeline lays out its batch in a way that is not known"
            )
        # Reading the timestep waits for the device, so only where some row's guidance depends on it.
        now = self.timesteps_total if all(params.constant for params in self.params) else timestep()
        scales = [params.scale_at(now, self.timesteps_total) for params in self.params]
        run.guided = any(scale > 1 for scale in scales)
        if not run.guided:
            self.guidance.plain_steps += 1
            return None
        self.guidance.guided_steps += 1
        index = run.prompt_of_row(len(self.params)).repeat_interleave(frames).tolist()
        # A row without guidance rides with scale 1, which returns Z+ exactly.
        numbers = [(scales[i], self.params[i].tau, self.params[i].alpha) for i in index]
        scale, tau, alpha = (
            torch.tensor(column, dtype=torch.float32, device=embeds.device).view(-1, 1, 1)
            for column in zip(*numbers, strict=True)
        )
        prompt = run.prompt_of_row(len(run.negative.embeds)).repeat_interleave(frames)
        negative = run.negative.to(embeds).at(prompt)
        return Step(scale, tau, alpha, negative, rows)

    def _check_count(self, name: str, count: int, prompts: int) -> None:
        if count not in (1, prompts):
            raise InvalidParameter(name, f"{count} values given for {prompts} prompts; give one, or one per prompt")
