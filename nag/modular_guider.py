"""`NAGGuider`: Normalized Attention Guidance as the guider of a modular pipeline, saved with its configuration."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from typing import Any, ClassVar

from diffusers.configuration_utils import register_to_config
from diffusers.guiders import BaseGuidance
from diffusers.guiders.guider_utils import GuiderOutput
from diffusers.modular_pipelines import ModularPipeline
from torch import Tensor, nn

from nag.attachment import Attachment, Plan, attach_family
from nag.errors import InvalidParameter
from nag.families import family_of_denoiser
from nag.guided_step import RowGuidance
from nag.negative import NegativeEmbeds
from nag.params import NAGParams, params_by_prompt
from nag.pipelines import calling_pipeline
from nag.processor_swap import original
from nag.schedule import continues_step, scheduler_of, timesteps_total, training_timestep

__all__ = ["NAGGuider"]


class NAGGuider(BaseGuidance):
    """Guides a modular pipeline away from its own negative prompt by one denoiser call per step.

    It is for loops that take a guider: `pipe.update_components(guider=nag.NAGGuider(scale=5))`. `nag.guide(pipe, …)` is
    for loops without one, and for guidance together with another guider.

    Args:
        scale: s ≥ 1; the paper's φ is s − 1. This and the next numbers default to those of the denoiser's family.
        tau: τ ≥ 1, the largest growth of a token's L1 norm.
        alpha: α in [0, 1], the share of the guided output.
        end: θ in [0, 1]; guidance runs while the timestep t ≥ (1 − θ)·T.
        enabled: whether to guide.

    Raises:
        InvalidParameter: a number out of range; in a loop, a denoiser that `nag.guide` guides already.
        UnsupportedPipeline: in a loop, a denoiser of no family, or no negative prompt for the guider.

    """

    _input_predictions: ClassVar[list[str]] = ["pred_cond"]
    #: LTX-2's loops ask each guider for the blocks that another guidance perturbs.
    spatio_temporal_guidance_blocks: ClassVar[None] = None

    @register_to_config  # type: ignore[untyped-decorator]
    def __init__(
        self,
        scale: float | None = None,
        tau: float | None = None,
        alpha: float | None = None,
        end: float | None = None,
        enabled: bool = True,
    ) -> None:
        super().__init__(enabled=enabled)
        self._numbers = {"scale": scale, "tau": tau, "alpha": alpha, "end": end}
        params_by_prompt(NAGParams(scale=1.0, tau=1.0, alpha=0.0), **self._numbers)
        self._negative: dict[str, Any] = {}
        self._scale = 1.0  # at the step under way
        self._call, self._attachments = ExitStack(), ExitStack()

    @property
    def is_conditional(self) -> bool:
        """Whether the denoiser call under way is for the prompt itself: all calls are."""
        return True

    @property
    def num_conditions(self) -> int:
        """How many prompts the pipeline must encode; a step still makes one denoiser call."""
        return 2 if self._enabled else 1

    def active_predictions(self) -> list[str]:
        """Returns the predictions of a step."""
        return ["pred_cond"]

    def prepare_inputs(self, data: dict[str, Any]) -> list[Any]:
        """Returns the batch of the prompt, and keeps that of the negative prompt."""
        self._negative = self._prepare_batch(data, 1, "negative").as_dict()
        return [self._prepare_batch(data, 0, "pred_cond")]

    def prepare_inputs_from_block_state(self, data: Any, input_fields: dict[str, Any]) -> list[Any]:
        """Returns the batch of the prompt, and keeps that of the negative prompt."""
        self._negative = self._prepare_batch_from_block_state(input_fields, data, 1, "negative").as_dict()
        return [self._prepare_batch_from_block_state(input_fields, data, 0, "pred_cond")]

    def prepare_models(self, denoiser: nn.Module) -> None:
        """Makes the next call of the denoiser a guided one."""
        super().prepare_models(denoiser)
        self._call.close()  # of a call that failed
        if self._step == 0:
            self._attachments.close()
        if not self._enabled:
            return
        family = family_of_denoiser(denoiser)
        family.check_denoiser(original(denoiser))
        with ExitStack() as stack:
            attachment = stack.enter_context(attach_family(denoiser, family))
            if attachment.is_planned:
                raise InvalidParameter("guider", "its denoiser is guided by nag.guide already; use one of the two")
            if attachment.current.is_traced:
                # A new attachment would be compiled again.
                self._attachments.enter_context(attach_family(denoiser, family))
            one_call = stack.enter_context(ExitStack())
            plan = self._plan(attachment, family.negative_of_arguments(self._negative), one_call.close)
            one_call.enter_context(attachment.apply_plan(plan))
            self._call = stack.pop_all()

    def _plan(self, attachment: Attachment, negative: NegativeEmbeds, on_call: Callable[[], None]) -> Plan:
        (params,) = params_by_prompt(attachment.family.defaults, **self._numbers)

        def plan(call: dict[str, Any]) -> list[RowGuidance | None]:  # noqa: ARG001 (a plan's signature)
            on_call()  # even if it fails, which no guider is told
            scheduler = scheduler_of(calling_pipeline(ModularPipeline))
            if not continues_step(scheduler):
                self._scale = self._scale_at(params, scheduler)
            return [RowGuidance(row, self._scale, params.tau, params.alpha) for row in negative.rows]

        return plan

    def _scale_at(self, params: NAGParams, scheduler: Any) -> float:
        total = timesteps_total(scheduler)
        # Reading the timestep waits for the device, so it is read only if guidance depends on it.
        timestep = total if params.is_constant else training_timestep(scheduler, float(self._timestep))
        return params.scale_at(timestep, total)

    def cleanup_models(self, denoiser: nn.Module) -> None:  # noqa: ARG002 (the guider's contract)
        """Leaves the denoiser as it was; a compiled one after the last step."""
        self._call.close()
        if self._num_inference_steps is None or self._step is None or self._step + 1 >= self._num_inference_steps:
            self._attachments.close()

    def __call__(self, data: list[Any]) -> Any:
        """Returns the prediction of the one batch."""
        return self.forward(data[0].noise_pred)

    def forward(self, pred_cond: Tensor) -> Any:
        """Returns the guided prediction as it is."""
        return GuiderOutput(pred=pred_cond, pred_cond=pred_cond, pred_uncond=None)
