"""Modular Diffusers: reads from a pipeline's blocks and guiders what prompt it encodes and what each denoiser call is.

The pipeline runs copies of its own blocks and guiders that report to the state of one `nag.guide`:

- A block that encodes the prompt runs once more for the negative prompt, in a state of its own.
- A guider names each prediction it asks for. The denoiser call of `pred_cond` is the conditional one; every other
  stays plain, whatever the guider combines them to. A loop without a guider makes conditional calls alone.
- Loops and guiders tell the timestep as the scheduler has it.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

from diffusers.guiders import BaseGuidance
from diffusers.modular_pipelines import (
    LoopSequentialPipelineBlocks,
    ModularPipelineBlocks,
    PipelineState,
)

from nag._diffusers import pipeline_blocks, prediction_name, set_current_timestep, set_pipeline_blocks
from nag.errors import UnsupportedPipeline
from nag.families import Family
from nag.guidance_state import GuidanceState
from nag.negative import NegativeEmbeds
from nag.pipeline_hooks import override_call

__all__ = ["text_blocks", "watch_blocks"]

#: The prediction of a guider that is the prompt's own.
CONDITIONAL = "pred_cond"
#: What text blocks call the fields of `NegativeEmbeds`.
ENCODED_NAMES = {
    "prompt_embeds": "embeds",
    "pooled_prompt_embeds": "pooled",
    "prompt_attention_mask": "mask",
    "prompt_embeds_mask": "mask",
}


@contextmanager
def watch_blocks(pipe: Any, family: Family, state: GuidanceState) -> Iterator[None]:
    """Lets the pipeline's blocks and guiders report to `state` inside the block.

    Raises:
        UnsupportedPipeline: while the pipeline runs, if its guider does not name the conditional prediction.

    """
    guiders = {name: part for name, part in pipe.components.items() if isinstance(part, BaseGuidance)}
    with ExitStack() as stack:
        state.is_call_conditional = not guiders
        stack.callback(setattr, state, "is_call_conditional", None)
        stack.callback(set_current_timestep, pipe, None)
        stack.callback(set_pipeline_blocks, pipe, pipeline_blocks(pipe))
        set_pipeline_blocks(pipe, _copy_blocks(pipe, family, state))
        for name, guider in guiders.items():
            stack.callback(setattr, pipe, name, guider)
            setattr(pipe, name, _copy_guider(pipe, guider, state))
        yield


def _copy_guider(pipe: Any, guider: BaseGuidance, state: GuidanceState) -> BaseGuidance:
    copied = copy.copy(guider)
    predictions: list[str] = []

    def set_state(*args: Any, **kwargs: Any) -> None:
        guider_type.set_state(copied, *args, **kwargs)
        set_current_timestep(pipe, copied.get_state()["timestep"])

    def record(batches: list[Any]) -> list[Any]:
        predictions[:] = [prediction_name(batch) for batch in batches]
        if CONDITIONAL not in predictions:
            raise UnsupportedPipeline(
                f"{guider_type.__name__} does not name a prediction {CONDITIONAL!r}, so which denoiser call is the "
                f"prompt's own is unknown; it names {predictions}"
            )
        return batches

    def prepare_models(denoiser: Any) -> None:
        # Of two guiders for one denoiser, the first leads; what the other asks for beside it follows unnamed.
        state.is_call_conditional = bool(predictions) and predictions.pop(0) == CONDITIONAL
        guider_type.prepare_models(copied, denoiser)

    def cleanup_models(denoiser: Any) -> None:
        state.is_call_conditional = False
        guider_type.cleanup_models(copied, denoiser)

    guider_type: Any = type(guider)
    copied.set_state = set_state
    copied.prepare_models, copied.cleanup_models = prepare_models, cleanup_models
    for name in ("prepare_inputs", "prepare_inputs_from_block_state"):
        prepare = getattr(guider_type, name)
        setattr(copied, name, lambda *args, prepare=prepare, **kwargs: record(prepare(copied, *args, **kwargs)))
    return copied


def text_blocks(blocks: ModularPipelineBlocks) -> list[ModularPipelineBlocks]:
    """Returns the blocks that encode the prompt, and those that read only the outputs of such blocks."""
    selected: list[ModularPipelineBlocks] = []
    encoded: set[str] = set()
    for block in _leaves(blocks):
        inputs, outputs = set(filter(None, block.input_names)), set(block.output_names)
        encodes = "prompt" in inputs and "prompt" not in outputs
        if encodes or (inputs and inputs <= encoded):
            selected.append(block)
            encoded |= outputs
    return selected


def _leaves(block: ModularPipelineBlocks) -> Iterator[ModularPipelineBlocks]:
    if isinstance(block, LoopSequentialPipelineBlocks) or not block.sub_blocks:
        yield block
        return
    for sub_block in block.sub_blocks.values():
        yield from _leaves(sub_block)


def _copy_blocks(pipe: Any, family: Family, state: GuidanceState) -> ModularPipelineBlocks:
    """Copies the pipeline's blocks, with text blocks that encode the negative prompt too."""
    texts = text_blocks(pipeline_blocks(pipe))
    negative = _NegativeRun(family, state)

    def copy_block(block: ModularPipelineBlocks) -> ModularPipelineBlocks:
        if any(block is text for text in texts):
            copied = copy.copy(block)
            override_call(copied, negative.run_block)
            return copied
        if isinstance(block, LoopSequentialPipelineBlocks):
            return _copy_loop(pipe, block)
        if not block.sub_blocks:
            return block
        block = copy.copy(block)
        block.sub_blocks = copy.copy(block.sub_blocks)
        for name, sub_block in block.sub_blocks.items():
            block.sub_blocks[name] = copy_block(sub_block)
        return block

    return copy_block(pipeline_blocks(pipe))


def _copy_loop(pipe: Any, loop: LoopSequentialPipelineBlocks) -> LoopSequentialPipelineBlocks:
    copied = copy.copy(loop)

    def loop_step(components: Any, state: Any, **kwargs: Any) -> Any:
        set_current_timestep(pipe, kwargs.get("t"))
        return loop.loop_step(components, state, **kwargs)

    copied.loop_step = loop_step
    return copied


class _NegativeRun:
    """A second run of the text blocks, for the negative prompt."""

    def __init__(self, family: Family, state: GuidanceState) -> None:
        self.family, self.state = family, state
        self.values: PipelineState | None = None

    def run_block(self, call: Callable[..., Any], block: Any, pipe: Any, values: PipelineState) -> Any:
        """Calls a block for the pipeline, whose state is `values`, then for the negative prompt."""
        if "prompt" in block.input_names:
            self.begin(block, values)
        result = call(block, pipe, values)
        if self.values is not None:
            call(block, pipe, self.values)
        return result

    def begin(self, block: ModularPipelineBlocks, values: PipelineState) -> None:
        """Copies the pipeline's state with the negative prompt in the prompt's place."""
        names = ("num_images_per_prompt", "num_videos_per_prompt")
        self.state.late_arguments = {name: values.get(name) for name in ("prompt", *names)}
        if self.state.negative_prompts is None:
            return
        prompts = self.state.negative_prompts
        # Some blocks take a prompt, but no list of one.
        is_text = isinstance(values.get("prompt"), str) and len(prompts) == 1
        changed: dict[str, Any] = dict.fromkeys(names, 1) | {"prompt": prompts[0] if is_text else list(prompts)}
        changed |= dict.fromkeys(("prompt_2", "prompt_3", *(n for n in block.input_names if "negative" in (n or ""))))
        self.values = PipelineState(values.values | changed, copy.deepcopy(values.kwargs_mapping))
        self.state.encode = lambda prompts, arguments: self.negative_embeds()  # noqa: ARG005

    def negative_embeds(self) -> NegativeEmbeds:
        """Returns the negative prompt after all text blocks have run."""
        assert self.values is not None
        encoded = {ENCODED_NAMES.get(name, name): value for name, value in self.values.values.items()}
        return self.family.negative_embeds(encoded)
