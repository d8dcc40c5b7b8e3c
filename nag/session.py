"""What one `guide` knows: the negative prompt, each prompt's numbers, the pipeline call and the step under way."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor

from nag.errors import InvalidParameter, NAGError, UnsupportedPipeline
from nag.packing import Packing
from nag.params import NAGParams

__all__ = ["Guidance", "Negative", "Run", "Session", "Step"]


@dataclass(frozen=True)
class Negative:
    """Encoded negative prompts, as the pipeline's encode_prompt returns them; N is 1 or one per prompt.

    Attributes:
        embeds: (N, L, C).
        pooled: (N, P), where the family has one.
        mask: (N, L), 1 at the tokens to attend to, where the family masks its text.
        more: what else the denoiser reads of a prompt, by the denoiser's argument names; each (N, ...).

    """

    embeds: Tensor
    pooled: Tensor | None = None
    mask: Tensor | None = None
    more: dict[str, Tensor] = field(default_factory=dict)

    def to(self, like: Tensor) -> Negative:
        """On the device of `like`, floating point in its dtype."""
        return self._each(lambda each: each.to(like) if each.is_floating_point() else each.to(like.device))

    def at(self, index: Tensor) -> Negative:
        """The rows `index` (B,) names."""
        index = index.to(self.embeds.device)
        return self._each(lambda each: each[index])

    def filled(self, rows: slice, count: int) -> Negative:
        """As `rows` of `count`; the others, which are not guided, are zero."""

        def fill(each: Tensor) -> Tensor:
            if len(each) == count:
                return each
            full = each.new_zeros(count, *each.shape[1:])
            full[rows] = each
            return full

        return self._each(fill)

    def _each(self, change: Callable[[Tensor], Tensor]) -> Negative:
        pooled, mask = (None if each is None else change(each) for each in (self.pooled, self.mask))
        return Negative(change(self.embeds), pooled, mask, {name: change(each) for name, each in self.more.items()})


@dataclass
class Run:
    """One pipeline call: how its rows are made of prompts, and the negative prompt encoded as it encodes its own."""

    prompts: int
    images_per_prompt: int
    negative: Negative
    in_cfg: bool = False  # whether the pipeline told its encode_prompt that it runs CFG
    by_hand: bool = False  # the denoiser is called without the pipeline, a prompt a row
    used: bool = False  # the denoiser has been called
    guided: bool | None = None  # whether the last conditional denoiser call was; None before the first
    # Of the embeddings that calls for the prompt and CFG's other calls bring; see `Session.conditional`.
    positive_address: int | None = None
    positive_timestep: Tensor | float = 0.0
    other_address: int | None = None
    kept_for: dict[int, Any] = field(default_factory=dict)  # denoiser → what the keys its processors keep depend on

    def prompt_of_row(self, count: int) -> Tensor:
        """For `count` values given, one or one per prompt: which of them each row takes."""
        prompts = torch.arange(self.prompts).repeat_interleave(self.images_per_prompt)
        return prompts if count > 1 else torch.zeros_like(prompts)


@dataclass(frozen=True)
class Step:
    """What the attention processors of one denoiser call need. Numbers are (B, 1, 1), a row a picture."""

    scale: Tensor
    tau: Tensor
    alpha: Tensor
    negative: Negative
    rows: slice  # the guided rows of the denoiser's batch
    packing: Packing | None = None  # set where the negative travels in the text sequence
    text_keys: int = 0  # in cross attention: keys that the attention to the text has
    repeats: int = 1  # rows that attention has for each of the denoiser's, one after the other (a video's frames)

    def as_attended(self) -> Step:
        """With rows and numbers as attention has them."""
        if self.repeats == 1:
            return self
        scale, tau, alpha = (each.repeat_interleave(self.repeats, 0) for each in (self.scale, self.tau, self.alpha))
        rows = slice(self.rows.start * self.repeats, self.rows.stop * self.repeats)
        negative = self.negative.at(torch.arange(len(self.negative.embeds)).repeat_interleave(self.repeats))
        return replace(self, scale=scale, tau=tau, alpha=alpha, rows=rows, negative=negative, repeats=1)


@dataclass
class Guidance:
    """What `guide` yields: the numbers in force and, as the pipeline runs, what was really done."""

    params: tuple[NAGParams, ...]
    guided_steps: int = 0  # denoiser calls in which guidance ran
    plain_steps: int = 0  # conditional denoiser calls in which every row was past its end or unguided


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
        self._check_count("scale, tau, alpha, end", len(self.params), prompts)
        negative = self.given
        if negative is None and self.encode is not None and self.prompts is not None:
            negative = self.encode(self.prompts, arguments)
        assert negative is not None
        images = int(arguments.get("num_images_per_prompt") or arguments.get("num_videos_per_prompt") or 1)
        self.run = Run(prompts, images, negative, bool(arguments.get("do_classifier_free_guidance")))

    def begin_call(self) -> None:
        """Called when the pipeline starts on a new call."""
        self.run = None

    def run_of(self, rows: int) -> Run:
        """The pipeline call under way; a denoiser called by hand counts a prompt a row.

        Raises:
            NAGError: called by hand with a negative prompt that nobody has encoded.

        """
        if self.run is None or (self.run.by_hand and self.run.prompts != rows):
            if self.given is None:
                raise NAGError(
                    "the negative prompt is encoded when the pipeline encodes its own; "
                    "where the denoiser is called without the pipeline, give negative_prompt_embeds"
                )
            for name, count in (("negative_prompt_embeds", len(self.given.embeds)), ("scale", len(self.params))):
                self._check_count(name, count, rows)
            self.run = Run(rows, 1, self.given, by_hand=True)
        self.run.used = True
        return self.run

    def conditional(self, embeds: Tensor, timestep: Tensor | float) -> bool:
        """Whether this call denoises for the prompt itself, in a family that runs CFG as calls of their own.

        Every such pipeline denoises for the prompt first, and brings the same embeddings to each of its steps. Other
        embeddings at the same timestep are CFG's unconditional ones; at another, a callback has replaced the prompt's.
        """
        run, address = self.run, embeds.data_ptr()
        if run is None or run.by_hand:
            return True
        if address == run.other_address:
            return False
        known = run.positive_address in (None, address)
        if not known and bool(torch.all(torch.as_tensor(timestep == run.positive_timestep))):
            run.other_address = address
            return False
        run.positive_address, run.positive_timestep = address, timestep
        return True

    def plan(self, embeds: Tensor, rows: slice, timestep: Callable[[], float]) -> Step | None:
        """The step for the guided `rows` of a call that brings `embeds` (B, L, C); None where nothing is guided.

        Raises:
            UnsupportedPipeline: the rows are not prompts × images, so which row is whose cannot be told.

        """
        count = rows.stop - rows.start
        run = self.run_of(count)
        if run.prompts * run.images_per_prompt != count:
            raise UnsupportedPipeline(
                f"the denoiser got {count} guided rows for {run.prompts} prompts of {run.images_per_prompt} images: "
                "this pipeline lays out its batch in a way that is not known"
            )
        # Reading the timestep waits for the device, so only where some row ends early.
        now = timestep() if any(params.end < 1 for params in self.params) else self.timesteps_total
        active = [params if params.active(now, self.timesteps_total) else None for params in self.params]
        run.guided = any(active)
        if not run.guided:
            self.guidance.plain_steps += 1
            return None
        self.guidance.guided_steps += 1
        index = run.prompt_of_row(len(self.params)).tolist()
        # A row without guidance rides with scale 1, which returns Z+ exactly.
        numbers = [(p.scale, p.tau, p.alpha) if (p := active[i]) else (1.0, 1.0, 0.0) for i in index]
        scale, tau, alpha = (
            torch.tensor(column, dtype=torch.float32, device=embeds.device).view(-1, 1, 1)
            for column in zip(*numbers, strict=True)
        )
        negative = run.negative.to(embeds).at(run.prompt_of_row(len(run.negative.embeds)))
        return Step(scale, tau, alpha, negative, rows)

    def _check_count(self, name: str, count: int, prompts: int) -> None:
        if count not in (1, prompts):
            raise InvalidParameter(name, f"{count} values given for {prompts} prompts; give one, or one per prompt")
