"""The state of one `guide`: the negative prompt, the numbers of each prompt, the pipeline call and the report."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from nag.errors import InvalidParameter, NAGError, UnsupportedPipeline
from nag.guided_step import EncodedRowGuidance, RowGuidance
from nag.negative import NegativeEmbeds
from nag.params import NAGParams
from nag.pipelines import Arguments

__all__ = ["Guidance", "GuidanceState", "PipelineCall"]


@dataclass
class Guidance:
    """The report that `guide` yields: the numbers in force, and how many steps were guided so far."""

    params: tuple[NAGParams, ...]
    guided_steps: int = 0  # steps in which guidance ran
    plain_steps: int = 0  # steps in which every row was outside its guided interval or unguided
    guided_steps_by_params: list[int] = field(default_factory=list)  # steps in which each of `params` guided

    def add_step(self, are_guided: Sequence[bool]) -> None:
        """Counts a step. are_guided: whether each of `params` guides it."""
        self.guided_steps += any(are_guided)
        self.plain_steps += not any(are_guided)
        before = self.guided_steps_by_params or [0] * len(are_guided)
        self.guided_steps_by_params = [count + guided for count, guided in zip(before, are_guided, strict=True)]


@dataclass
class PipelineCall:
    """One pipeline call: its prompts and images per prompt, and the negative prompt encoded as it encodes its own."""

    prompts: int
    images_per_prompt: int
    negative: NegativeEmbeds
    in_cfg: bool = False  # whether the pipeline told its encode_prompt that it runs CFG
    used: bool = False  # the denoiser has been called
    timestep: float = 0.0  # of the last conditional denoiser call, on the scale of training
    guided: bool | None = None  # whether the last conditional denoiser call was; None before the first
    _row_guidance: dict[tuple[int, float, NAGParams], RowGuidance] = field(default_factory=dict)

    @functools.cached_property
    def negatives(self) -> tuple[NegativeEmbeds, ...]:
        """The negative prompts one by one; their text keys are kept for as long as this call goes on."""
        return self.negative.rows

    def prompt_of_row(self, count: int) -> list[int]:
        """Returns which of `count` values, one or one per prompt, each row takes."""
        return [prompt if count > 1 else 0 for prompt in range(self.prompts) for _ in range(self.images_per_prompt)]

    def row_guidance(self, prompt: int, scale: float, params: NAGParams) -> RowGuidance:
        """Returns the guidance by negative prompt number `prompt` at scale s; the same object at every step."""
        key = prompt, scale, params
        if key not in self._row_guidance:
            self._row_guidance[key] = EncodedRowGuidance(
                self.negatives[prompt], scale, params.tau, params.alpha, params.method
            )
        return self._row_guidance[key]


@dataclass
class GuidanceState:
    """State shared by the hooks on the pipeline of one `guide`."""

    params: tuple[NAGParams, ...]
    negative_prompts: Sequence[str] | None
    negative_embeds: NegativeEmbeds | None
    timesteps_total: float
    guidance: Guidance
    extra_negative_prompts: Mapping[str, Sequence[str]] = field(default_factory=dict)
    encode: Callable[[Sequence[str], Arguments], NegativeEmbeds] | None = None
    pipeline_call: PipelineCall | None = None
    #: Whether a pipeline calls the denoiser: then its settings say which rows are conditional.
    inside_pipeline_call: bool = False
    #: Whether the denoiser call under way is conditional, if the pipeline's loop or its guider says so.
    is_call_conditional: bool | None = None
    #: Arguments for `on_prompts_encoded`, if the encoding is complete only at the first denoiser call.
    late_arguments: Arguments | None = None
    # Data pointers of the conditional and unconditional embeddings; see `is_conditional`.
    cond_ptr: int | None = None
    cond_timestep: Tensor | float = 0.0
    uncond_ptr: int | None = None

    def on_prompts_encoded(self, arguments: Arguments) -> None:
        """Encodes the negative prompt after the pipeline has encoded its prompt, by the same arguments.

        Pipelines encode their prompt first. What they encode after it, before the denoiser runs, is CFG's negative.

        Raises:
            InvalidParameter: the values given per prompt are not as many as the prompts.

        """
        if self.pipeline_call is not None and not self.pipeline_call.used:
            return
        prompt = arguments.get("prompt")
        embeds = arguments.get("prompt_embeds", arguments.get("prompt_embeds_t5"))
        prompts = len(embeds) if embeds is not None else 1 if isinstance(prompt, str) else len(prompt or ())
        if self.negative_prompts is not None:
            for name, texts in {"negative_prompt": self.negative_prompts, **self.extra_negative_prompts}.items():
                self._check_count(name, len(texts), prompts)
        self._check_counts(prompts)
        negative = self.negative_embeds
        if negative is None and self.encode is not None and self.negative_prompts is not None:
            negative = self.encode(self.negative_prompts, arguments)
        assert negative is not None
        images = int(arguments.get("num_images_per_prompt") or arguments.get("num_videos_per_prompt") or 1)
        self.begin_call()
        self.pipeline_call = PipelineCall(prompts, images, negative, bool(arguments.get("do_classifier_free_guidance")))

    def begin_call(self) -> None:
        """Marks the begin of a pipeline call."""
        self.end_call()
        self.inside_pipeline_call = True

    def end_call(self) -> None:
        """Marks the end of a pipeline call; later denoiser calls come from user code."""
        self.pipeline_call = self.cond_ptr = self.uncond_ptr = self.late_arguments = None
        self.inside_pipeline_call = False

    def is_conditional(self, embeds: Tensor, timestep: Tensor | float) -> bool:
        """Whether this denoiser call is for the prompt itself, in a family whose CFG makes two calls per step.

        It decides only when the pipeline says nothing (`nag.cache_context`). Every such pipeline calls for the prompt
        first and passes the same embeddings at each step. Other embeddings at the same timestep are unconditional; at
        another timestep, a callback has replaced the prompt's.
        """
        if not self.inside_pipeline_call:
            return True
        if self.is_call_conditional is not None:
            return self.is_call_conditional
        pointer = embeds.data_ptr()
        if pointer == self.uncond_ptr:
            return False
        is_known = self.cond_ptr in (None, pointer)
        if not is_known and bool(torch.all(torch.as_tensor(timestep == self.cond_timestep))):
            self.uncond_ptr = pointer
            return False
        self.cond_ptr, self.cond_timestep = pointer, timestep
        return True

    def plan_rows(
        self, embeds: Tensor, rows: slice, timestep: Callable[[], float], *, frames: int, continues_step: bool
    ) -> list[RowGuidance | None] | None:
        """Returns the guidance of each image or video of a denoiser call; None if nothing is guided.

        Args:
            embeds: the prompt tokens (B, L, C) of all rows.
            rows: the conditional ones.
            timestep: returns the timestep on the scale of training.
            frames: adjacent rows of `embeds` that are one video.
            continues_step: whether this is a second call for the same step, which is guided like the first.

        Raises:
            UnsupportedPipeline: the rows are not prompts × images, so which row is whose is unknown.
            InvalidParameter: the negative prompt has another width than the prompt.

        """
        count, rest = divmod(rows.stop - rows.start, frames)
        call = self._current_call(count)
        if rest or call.prompts * call.images_per_prompt != count:
            raise UnsupportedPipeline(
                f"the denoiser got {count} guided rows for {call.prompts} prompts of {call.images_per_prompt} images: "
                "this pipeline lays out its batch in a way that is not known"
            )
        if not continues_step:
            # Reading the timestep waits for the device, so it is read only if guidance depends on it.
            is_constant = all(params.is_constant for params in self.params)
            call.timestep = self.timesteps_total if is_constant else timestep()
        scales = [params.scale_at(call.timestep, self.timesteps_total) for params in self.params]
        if not continues_step:
            self.guidance.add_step([scale > 1 for scale in scales])
        call.guided = any(scale > 1 for scale in scales)
        if not call.guided:
            return None
        self._check_width(call.negative, embeds)
        guided = [
            call.row_guidance(prompt, scales[place], self.params[place])
            for prompt, place in zip(
                call.prompt_of_row(len(call.negatives)), call.prompt_of_row(len(self.params)), strict=True
            )
        ]
        first, last, total = rows.start // frames, rows.stop // frames, len(embeds) // frames
        return [None] * first + guided + [None] * (total - last)

    def _current_call(self, rows: int) -> PipelineCall:
        """Returns the pipeline call under way, or one with a prompt for each row if user code calls the denoiser.

        Raises:
            NAGError: called by user code with a negative prompt that was never encoded.

        """
        if self.pipeline_call is None and self.late_arguments is not None:
            self.on_prompts_encoded(self.late_arguments)
        if self.pipeline_call is None or (not self.inside_pipeline_call and self.pipeline_call.prompts != rows):
            if self.negative_embeds is None:
                raise NAGError(
                    "the negative prompt is encoded when the pipeline encodes its own, which it has not done; "
                    "give negative_prompt_embeds"
                )
            self._check_counts(rows)
            self.pipeline_call = PipelineCall(rows, 1, self.negative_embeds)
        self.pipeline_call.used = True
        return self.pipeline_call

    def _check_counts(self, prompts: int) -> None:
        if self.negative_embeds is not None:
            self._check_count("negative_prompt_embeds", len(self.negative_embeds.embeds), prompts)
        self._check_count("scale, tau, alpha, end, scale_decay, start, method", len(self.params), prompts)

    def _check_count(self, name: str, count: int, prompts: int) -> None:
        if count not in (1, prompts):
            raise InvalidParameter(name, f"{count} values given for {prompts} prompts; give one, or one per prompt")

    def _check_width(self, negative: NegativeEmbeds, embeds: Tensor) -> None:
        width = negative.embeds.shape[-1]
        if width != embeds.shape[-1]:
            name = "negative_prompt" if self.negative_embeds is None else "negative_prompt_embeds"
            raise InvalidParameter(
                name,
                f"has {width} channels, and the prompt {embeds.shape[-1]}; both need the same text encoders",
            )
