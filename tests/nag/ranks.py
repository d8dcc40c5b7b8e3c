"""Runs small guided pipelines on several ranks, processes on one CPU."""

from __future__ import annotations

import copy
import functools
import json
import multiprocessing
import traceback
import warnings
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any
from unittest import mock

import torch
import torch.distributed as dist
from diffusers import ContextParallelConfig
from diffusers.models import attention_dispatch
from diffusers.models._modeling_parallel import TensorParallelConfig
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh

import nag
from tests.nag.support import difference
from tests.tiny.calls import DenoiserCall

#: The ranks end by themselves if one of them fails.
COLLECTIVE_TIMEOUT_S, TIMEOUT_S = 60, 240
_native_attention = attention_dispatch._native_attention_forward_op


@dataclass(frozen=True)
class Scenario:
    """A guided pipeline run and how it is split.

    Attributes:
        subject: the pipeline (`Subject`), which each rank has a copy of.
        prompts: of the run, and
        options: further arguments of it.
        guidance: arguments of `nag.guide`; None runs the pipeline without it.
        parallelism: arguments of `ContextParallelConfig`, or `{"tp_degree": n}`.
        without: names of functions of `nag` whose result is replaced by their last argument.

    """

    subject: Any
    prompts: Any
    guidance: Mapping[str, Any] | None
    parallelism: Mapping[str, Any]
    options: Mapping[str, Any] = field(default_factory=dict)
    without: tuple[str, ...] = ()

    def run(self) -> Any:
        if self.guidance is None:
            return self.subject.generate(self.prompts, **self.options)
        with nag.guide(self.subject.pipe, **self.guidance) as guidance:
            output = self.subject.generate(self.prompts, **self.options)
        assert guidance.guided_steps > 0
        return output

    def split(self) -> None:
        """Splits the denoiser over all ranks."""
        count = dist.get_world_size()
        if "tp_degree" in self.parallelism:
            config: Any = TensorParallelConfig(mesh=_mesh((count,), ("tp",)))
        else:
            config = ContextParallelConfig(**self.parallelism)
            config.mesh = _mesh(config.mesh_shape, config.mesh_dim_names)
        denoiser = copy.deepcopy(self.subject.denoiser)
        self.subject.wrap(denoiser)
        denoiser.enable_parallelism(config=config)


class CallSubject:
    """A small denoiser under test, and a call of it."""

    def __init__(self, case: DenoiserCall) -> None:
        self.case, self.denoiser = case, case.make(0)

    def wrap(self, denoiser: Any) -> None:
        """Puts another module in the denoiser's place."""
        self.denoiser = denoiser


class CallScenario(Scenario):
    """A guided denoiser call and how it is split. Its prompts are tokens, the negative's behind the positive's."""

    @torch.no_grad()
    def run(self) -> Any:
        denoiser, case, (positive, negative) = self.subject.denoiser, self.subject.case, self.prompts
        assert self.guidance is not None
        numbers = [dict(zip(self.guidance, row, strict=True)) for row in zip(*self.guidance.values(), strict=True)]
        rows = [nag.RowGuidance(case.negative(negative[[place]]), **row) for place, row in enumerate(numbers)]
        with nag.attach(denoiser) as attached, attached.rows(rows):
            output = denoiser(**case.arguments(positive, positive.shape[1]))
        return torch.cat([part.flatten() for part in output.values()])


@functools.cache
def _mesh(shape: tuple[int, ...], names: tuple[str, ...]) -> DeviceMesh:
    """Returns a mesh of all ranks. Each makes process groups anew, so scenarios share them."""
    return init_device_mesh("cpu", shape, mesh_dim_names=names)


def differences(folder: Path, ranks: int, scenarios: Mapping[str, Scenario]) -> dict[str, list[Any]]:
    """Returns by name how far each rank's output is from that of one process, or the error that it ended with.

    The processes are forked: they have the pipelines already, and the models' libraries are slow to import.
    """
    expected = {name: scenario.run() for name, scenario in scenarios.items()}
    context = multiprocessing.get_context("fork")
    processes = [context.Process(target=_run, args=(folder, rank, ranks, scenarios, expected)) for rank in range(ranks)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(TIMEOUT_S)
    for process in processes:
        if process.is_alive():
            process.kill()
            process.join()
    found = [json.loads((folder / f"{rank}.json").read_text()) for rank in range(ranks)]
    return {name: [of_rank[name] for of_rank in found] for name in scenarios}


def _run(folder: Path, rank: int, ranks: int, scenarios: Mapping[str, Scenario], expected: Mapping[str, Any]) -> None:
    found: dict[str, Any] = dict.fromkeys(scenarios, "not run")
    try:
        dist.init_process_group(
            "gloo",
            init_method=f"file://{folder / 'store'}",
            rank=rank,
            world_size=ranks,
            timeout=timedelta(seconds=COLLECTIVE_TIMEOUT_S),
        )
        with (
            warnings.catch_warnings(),
            mock.patch("torch.accelerator.device_count", return_value=1),
            mock.patch("torch.accelerator.current_accelerator", return_value=None),  # also of a build for CUDA
            mock.patch("diffusers.hooks.tensor_parallel._SUPPORTED_TP_DEVICES", ("cpu",)),
            mock.patch.object(attention_dispatch, "_native_attention_forward_op", _with_lse),
        ):
            # Of diffusers, which calls functions of torch by former names.
            warnings.filterwarnings("ignore", "`torch.distributed._functional_collectives", FutureWarning)
            for name, scenario in scenarios.items():
                found[name] = _difference(scenario, expected[name])
    finally:
        (folder / f"{rank}.json").write_text(json.dumps(found))


def _difference(scenario: Scenario, expected: Any) -> Any:
    try:
        with ExitStack() as stack:
            stack.callback(scenario.subject.wrap, scenario.subject.denoiser)
            for name in scenario.without:
                stack.enter_context(mock.patch(name, _last_argument))
            scenario.split()
            return difference(scenario.run(), expected)
    except Exception:
        return traceback.format_exc()


def _last_argument(*args: Any) -> Any:
    return args[-1]


def _with_lse(
    ctx: Any,
    query: Any,
    key: Any,
    value: Any,
    attn_mask: Any,
    dropout_p: float,
    is_causal: bool,
    scale: float | None,
    enable_gqa: bool,
    return_lse: bool,
    **other: Any,
) -> Any:
    """Computes attention as diffusers' native backend does, with the log-sum-exp if a ring needs it."""
    if not return_lse:
        settings = (attn_mask, dropout_p, is_causal, scale, enable_gqa, return_lse)
        return _native_attention(ctx, query, key, value, *settings, **other)
    query, key, value = (states.transpose(1, 2) for states in (query, key, value))
    if attn_mask is not None and attn_mask.dtype == torch.bool:
        attn_mask = torch.zeros_like(attn_mask, dtype=query.dtype).masked_fill(~attn_mask, -torch.inf)
    out, lse = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu(
        query, key, value, attn_mask=attn_mask, scale=scale
    )
    return out.transpose(1, 2), lse.transpose(1, 2)
