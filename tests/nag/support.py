from __future__ import annotations

import copy
import inspect
import threading
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from typing import Any
from unittest import mock

import torch

import nag
from nag import NegativeEmbeds
from nag.families import family_of
from nag.families.family import Family
from tests.tiny import Case, find_case

STEPS = 4
#: What pipelines of videos and sound call `num_images_per_prompt`.
COPIES = ("num_videos_per_prompt", "num_waveforms_per_prompt")


class Subject:
    """A small pipeline under test, with how it is called."""

    def __init__(self, case: Case, seed: int = 0, steps: int = STEPS) -> None:
        self.case, self.steps = case, steps
        self.pipe = case.make(seed)
        self.pipe.set_progress_bar_config(disable=True)

    @classmethod
    def named(cls, name: str, steps: int = STEPS) -> Subject:
        """Makes the pipeline of the case `name`."""
        return cls(find_case(name), steps=steps)

    @property
    def denoisers(self) -> list[Any]:
        """All that the pipeline calls in turn."""
        found = (getattr(self.pipe, name, None) for name in ("transformer", "transformer_2", "unet"))
        return [each for each in found if each is not None]

    @property
    def denoiser(self) -> Any:
        return self.denoisers[0]

    @property
    def processors(self) -> list[Any]:
        """The attention processors of all denoisers."""
        modules = (module for denoiser in self.denoisers for module in denoiser.modules())
        return [module.processor for module in modules if hasattr(module, "processor")]

    def wrap(self, denoiser: Any) -> None:
        """Puts another module in the denoiser's place."""
        names = ("transformer", "transformer_2", "unet")
        setattr(self.pipe, next(name for name in names if getattr(self.pipe, name, None) is not None), denoiser)

    def generate(
        self,
        prompt: str | list[str] | None = "a red circle",
        seeds: Sequence[int] | None = None,
        *,
        cfg: bool = False,
        **options: Any,
    ) -> torch.Tensor:
        """Latents of a short run, a generator a picture."""
        images = options.get("num_images_per_prompt", options.get("num_videos_per_prompt", 1))
        count = (1 if prompt is None or isinstance(prompt, str) else len(prompt)) * images
        generators = [torch.Generator().manual_seed(seed) for seed in (seeds or range(count))]
        call: dict[str, Any] = {"num_inference_steps": self.steps, "output_type": "latent", "prompt": prompt} | dict(
            self.case.options
        )
        call["generator"] = generators if self.case.takes != "one prompt" else generators[0]
        if cfg:
            call |= self.case.cfg or {}
        with ExitStack() as stack:
            options = self._as_the_pipeline_calls_them(options, stack)
            if "guider" in call:  # some pipelines hold as a part what others take as a number
                stack.enter_context(mock.patch.object(self.pipe, "guider", call.pop("guider")))
            output = getattr(self.pipe(**(call | options)), self.case.output)
            return output[-1] if isinstance(output, list) else output  # some tell of each section, the last of all

    def _as_the_pipeline_calls_them(self, options: dict[str, Any], stack: ExitStack) -> dict[str, Any]:
        """Older pipelines have a callback that only watches, or none; some make videos or sound."""
        names = inspect.signature(self.pipe.__call__).parameters
        copies = next((name for name in COPIES if name in names), None)
        if copies is not None and "num_images_per_prompt" in options:
            options = options | {copies: options["num_images_per_prompt"]}
            del options["num_images_per_prompt"]
        then = options.get("callback_on_step_end")
        if then is None or "callback_on_step_end" in names:
            return options
        options = {name: value for name, value in options.items() if name != "callback_on_step_end"}
        if "callback" in names:
            return options | {"callback": lambda step, timestep, latents: then(self.pipe, step, timestep, {})}
        step = self.pipe.scheduler.step

        def step_and_tell(output: Any, timestep: Any, *args: Any, **kwargs: Any) -> Any:
            then(self.pipe, None, timestep, {})
            return step(output, timestep, *args, **kwargs)

        stack.enter_context(mock.patch.object(self.pipe.scheduler, "step", step_and_tell))
        return options

    def encode(self, negative: str) -> dict[str, Any]:
        """The negative's embeddings under the names that `nag.guide` takes them by."""
        family = family_of(self.pipe)
        names = inspect.signature(getattr(self.pipe, "encode_prompt", self.pipe.__call__)).parameters
        defaults = {"device": self.pipe.device, "num_images_per_prompt": 1}
        options = {name: value for name, value in (defaults | dict(self.case.options)).items() if name in names}
        needed = {name for name, each in names.items() if each.default is each.empty} - {"prompt"}
        if family.encoders != ("encode_prompt",) or needed - options.keys():
            return self._given(family, self._encode_as_called(family, negative))
        with torch.no_grad():
            encoded = family.encode(self.pipe.encode_prompt, [negative], options)
        return self._given(family, encoded)

    def _encode_as_called(self, family: Family, negative: str) -> NegativeEmbeds:
        """By the method that the pipeline calls for its own prompt, and with its arguments."""
        calls = []
        with ExitStack() as stack:
            for name in family.encoders:
                method = getattr(self.pipe, name, None)
                if method is not None:
                    spy = mock.patch.object(self.pipe, name, mock.Mock(wraps=method))
                    calls.append((method, stack.enter_context(spy)))
            self.generate(num_inference_steps=self.case.fewest_steps)
        method, spy = next((method, spy) for method, spy in calls if spy.called)
        arguments = dict(inspect.signature(method).bind(*spy.call_args.args, **spy.call_args.kwargs).arguments)
        with torch.no_grad():
            return family.encode(method, [negative], arguments)

    @staticmethod
    def _given(family: Family, encoded: NegativeEmbeds) -> dict[str, Any]:
        given = {
            "negative_prompt_embeds": encoded.embeds,
            "negative_pooled_prompt_embeds": encoded.pooled,
            family.negative_mask_arg: encoded.mask,
        } | {name: encoded.extra.get(argument) for name, argument in family.extra_negative_inputs.items()}
        return {name: value for name, value in given.items() if name is not None and value is not None}

    def calls(
        self, prompt: str | list[str] = "a red circle", **options: Any
    ) -> tuple[list[dict[str, Any]], list[torch.Tensor]]:
        """The named arguments of each denoiser call of a run, and each output."""
        arguments: list[dict[str, Any]] = []
        outputs: list[torch.Tensor] = []
        signature = inspect.signature(self.denoiser.forward)
        with ExitStack() as stack:
            for denoiser in self.denoisers:
                for hook in (
                    denoiser.register_forward_pre_hook(
                        lambda module, args, kwargs: arguments.append(dict(signature.bind(*args, **kwargs).arguments)),
                        with_kwargs=True,
                    ),
                    denoiser.register_forward_hook(lambda module, args, output: outputs.append(output[0])),
                ):
                    stack.callback(hook.remove)
            self.generate(prompt, **options)
        return arguments, outputs

    def calls_of_a_step(self, prompt: str | list[str], **options: Any) -> list[torch.Tensor]:
        """The outputs of the denoiser calls of the first step."""
        outputs = self.calls(prompt, num_inference_steps=self.case.fewest_steps, **options)[1]
        return outputs[: len(outputs) // self.case.fewest_steps]


def difference(a: torch.Tensor, b: torch.Tensor) -> float:
    """‖a − b‖ / ‖b‖."""
    return float((a - b).norm() / b.norm())


def keep_one_block_of_each_kind(denoiser: Any) -> None:
    """Removes blocks that repeat another: each takes as long to run, and longer to compile.

    Blocks stay that differ by their place: those of UNets and of HunyuanDiT have skip connections, those of FIBO 2 each
    a text of its own.
    """
    if type(denoiser).__name__ in ("HunyuanDiT2DModel", "BriaFibo2Transformer2DModel"):
        return
    for name, blocks in denoiser.named_children():
        is_repeated = isinstance(blocks, torch.nn.ModuleList) and len({type(block) for block in blocks}) == 1
        if is_repeated and name.endswith(("blocks", "layers")) and name not in ("down_blocks", "up_blocks"):
            del blocks[1:]


def compile_guided_parts(denoiser: Any, *, fullgraph: bool = True) -> None:
    """Compiles what guidance changes, each into one graph: attention and hooked modules, the first of each kind."""
    with nag.attach(denoiser) as attached:
        guided = {id(module) for module in attached.family.attentions(denoiser)}
        parts: dict[tuple[type, type], torch.nn.Module] = {}
        for name, module in denoiser.named_modules():
            if id(module) in guided or (name and (module._forward_hooks or module._forward_pre_hooks)):
                parts.setdefault((type(module), type(getattr(module, "processor", None))), module)
    for module in parts.values():
        if not any(module in part.modules() for part in parts.values() if part is not module):
            module.compile(fullgraph=fullgraph, backend="eager")


def copy_of(subject: Subject) -> Subject:
    """The same models under a pipeline of its own, as another caller has it."""
    other = copy.copy(subject)
    other.pipe = copy.copy(subject.pipe)
    for name, part in subject.pipe.components.items():
        if name.startswith(("scheduler", "tokenizer")):  # these keep state of a call, tokenizers of transformers too
            setattr(other.pipe, name, copy.deepcopy(part))
    return other


def run_in_threads(*calls: Callable[[], object]) -> None:
    errors: list[BaseException] = []

    def guard(call: Callable[[], object]) -> None:
        try:
            call()
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=guard, args=(call,)) for call in calls]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not errors, errors
