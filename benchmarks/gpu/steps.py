"""Steps of Flux.1: joined, by attention backend, compiled, and with weights in fewer bits."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from time import perf_counter
from typing import Any

import torch
from diffusers.hooks import apply_layerwise_casting
from diffusers.models.attention_dispatch import attention_backend
from torch import nn

import nag
from app.worker.devices.memory import held_bytes
from benchmarks import report
from benchmarks.denoisers import MAKERS, SMALL, Denoiser, Draw
from benchmarks.gpu.arguments import parser, seconds_of
from nag.negative import NegativeEmbeds

ROUNDS = 5
TIMESTEP = 1000.0
BACKENDS = ("_native_cudnn", "_native_flash", "_native_efficient", "_native_math", "flash", "_flash_3", "sage")
Rows = list[Sequence[str]]
#: Makes the same denoiser at each call.
Make = Callable[[], Denoiser]
Quantize = Callable[[nn.Module, torch.dtype], None]


def joined(make: Make, device: str) -> tuple[Sequence[str], Rows]:
    """Times calls of several requests with guidance of their own as one denoiser call, against one call each."""
    rows: Rows = []
    work = make()
    timestep = torch.ones_like(work.shared["hidden_states"][:, 0, 0])
    arguments = {**work.shared, **work.prompts[0], "timestep": timestep, "return_dict": False}
    names = {"negative_prompt_embeds": "embeds", "negative_pooled_prompt_embeds": "pooled"}
    tensors: dict[str, Any] = {names[name]: tensor for name, tensor in work.negative.items()}
    negative = NegativeEmbeds(**tensors)
    single_s = 0.0
    with nag.attach(work.module) as attached:
        for count in (1, 2, 4, 8):
            guidance = [[nag.RowGuidance(negative, 3.0 + place, 2.5, 0.25)] for place in range(count)]
            call = nag.join(work.module, [arguments] * count, guidance)

            def step(call: Any = call) -> Any:
                with attached.rows(call.rows):
                    return work.module(**call.arguments)

            seconds = seconds_of(step, device, ROUNDS)
            single_s = single_s or seconds
            rows.append([str(count), f"{seconds * 1000:.1f}", f"{count * single_s / seconds:.2f}"])
    return ("requests in a call", "ms", "× the rate of one"), rows


def attention(make: Make, device: str) -> tuple[Sequence[str], Rows]:
    """Times plain and guided steps by backend, and compares their output with that of the native one."""
    rows: Rows = []
    work = make()
    plain, guided = _steps(work)
    expected = plain(), guided()
    rows.append(["native", *(f"{seconds_of(step, device, ROUNDS) * 1000:.1f}" for step in (plain, guided)), "0", ""])
    for name in BACKENDS:
        try:
            with attention_backend(name):
                outs = plain(), guided()
                times = [f"{seconds_of(step, device, ROUNDS) * 1000:.1f}" for step in (plain, guided)]
            errors = [float((out - other).norm() / other.norm()) for out, other in zip(outs, expected, strict=True)]
            rows.append([name, *times, f"{max(errors):.1e}", ""])
        except Exception as error:  # of a kernel that is not here
            rows.append([name, "", "", "", " ".join(str(error).split())[:120]])
    return ("attention", "plain, ms", "guided, ms", "relative difference", "not measured"), rows


def compiled(make: Make, device: str) -> tuple[Sequence[str], Rows]:
    """Times the first and later steps, compiled by blocks and not."""
    rows: Rows = []
    work = make()
    expected = [step() for step in _steps(work)]
    for name in ("not compiled", "compile = blocks"):
        if name != "not compiled":
            # On a CPU, where the script is only tried, traced and not compiled: that takes minutes.
            work.module.compile_repeated_blocks(backend="eager" if device == "cpu" else "inductor")
        for kind, step, other in zip(("plain", "guided"), _steps(work), expected, strict=True):
            begun_s = perf_counter()
            error = float((step() - other).norm() / other.norm())
            first_s = perf_counter() - begun_s
            rows.append(
                [name, kind, f"{first_s:.1f}", f"{seconds_of(step, device, ROUNDS) * 1000:.1f}", f"{error:.1e}"]
            )
    return ("setting", "step", "first, s", "later, ms", "relative difference"), rows


def quantization(make: Make, device: str) -> tuple[Sequence[str], Rows]:
    """Times steps with weights in fewer bits, and compares output and weights with those of bfloat16."""
    work = make()
    expected, whole, dtype = [step() for step in _steps(work)], held_bytes(work.pipe), work.module.dtype
    rows: Rows = []
    del work
    for name, quantize in QUANTIZERS.items():
        changed = make()  # of the same weights
        try:
            quantize(changed.module, dtype)
            steps = _steps(changed)
            errors = [float((step() - out).norm() / out.norm()) for step, out in zip(steps, expected, strict=True)]
            times = [f"{seconds_of(step, device, ROUNDS) * 1000:.1f}" for step in steps]
            rows.append([name, *times, f"{max(errors):.1e}", f"{held_bytes(changed.pipe) / whole:.2f}", ""])
        except Exception as error:  # of a package or kernel that is not here
            rows.append([name, "", "", "", "", " ".join(str(error).split())[:120]])
        del changed
    return ("weights", "plain, ms", "guided, ms", "relative difference", "× bytes", "not measured"), rows


def _cast(module: nn.Module, dtype: torch.dtype) -> None:
    apply_layerwise_casting(module, torch.float8_e4m3fn, dtype)


def _torchao(config: str) -> Quantize:
    def quantize(module: nn.Module, dtype: torch.dtype) -> None:  # noqa: ARG001
        from torchao import quantization

        quantization.quantize_(module, getattr(quantization, config)())

    return quantize


def _bitsandbytes(kind: str, **options: Any) -> Quantize:
    def quantize(module: nn.Module, dtype: torch.dtype) -> None:
        from bitsandbytes import nn as layers

        for parent in list(module.modules()):
            for name, layer in list(parent.named_children()):
                if type(layer) is nn.Linear:
                    if kind == "Linear4bit":
                        options["compute_dtype"] = dtype
                    changed = getattr(layers, kind)(
                        layer.in_features, layer.out_features, layer.bias is not None, **options
                    )
                    changed.load_state_dict(layer.state_dict())
                    setattr(parent, name, changed.to(layer.weight.device))

    return quantize


QUANTIZERS: dict[str, Quantize] = {
    "none": lambda module, dtype: None,  # noqa: ARG005
    "layerwise-fp8": _cast,
    "torchao-int8": _torchao("Int8WeightOnlyConfig"),
    "torchao-fp8": _torchao("Float8WeightOnlyConfig"),
    "bitsandbytes-int8": _bitsandbytes("Linear8bitLt", has_fp16_weights=False),
    "bitsandbytes-nf4": _bitsandbytes("Linear4bit", quant_type="nf4"),
}
TABLES: dict[str, Callable[[Make, str], tuple[Sequence[str], Rows]]] = {
    "joined": joined, "attention": attention, "compile": compiled, "quantization": quantization,
}  # fmt: skip


def _steps(work: Denoiser) -> tuple[Callable[[], Any], Callable[[], Any]]:
    """Returns a plain and a guided step."""

    negative: dict[str, Any] = dict(work.negative)

    def guided() -> Any:
        with nag.guide(work.pipe, **negative):
            return work.step(0, TIMESTEP)

    return lambda: work.step(0, TIMESTEP), guided


def main() -> None:
    arguments_parser = parser(__doc__)
    arguments_parser.add_argument("--table", choices=TABLES, required=True)
    arguments = arguments_parser.parse_args()
    device = arguments.device
    draw = Draw(device, torch.float32 if arguments.small else torch.bfloat16, SMALL if arguments.small else 1)
    what: list[str] = []

    def make() -> Denoiser:
        torch.manual_seed(0)
        work = MAKERS["flux"](draw, not arguments.small)
        what[:] = [work.what]
        return work

    with torch.no_grad():
        columns, rows = TABLES[arguments.table](make, device)
    report.write(
        f"steps-{arguments.table}", f"{arguments.table}: steps of {what[0]}, {draw.dtype}", columns, rows, rows,
        report.machine(device), folder=arguments.out,
    )  # fmt: skip


if __name__ == "__main__":
    main()
