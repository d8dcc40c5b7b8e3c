"""float16 with activations near the end of its range, as large models have them: extrapolation would leave it."""

from __future__ import annotations

import pytest
import torch

import nag
from tests.nag.support import Subject, difference

GAIN = 2000.0
SCALE = 500.0


@pytest.mark.parametrize("name", ["flux", "sd", "sd3", "qwen-image", "wan"])
def test_large_attention_outputs_stay_finite_and_are_guided(name: str) -> None:
    subject = Subject.named(name)
    with nag.guide(subject.pipe, "a blue square", scale=SCALE, alpha=0.5):
        expected = subject.generate()
    for module in subject.denoiser.modules():
        values = [getattr(module, name, None) for name in ("to_v", "add_v_proj")]
        outs = [getattr(module, "to_add_out", None), *(getattr(module, "to_out", None) or [])[:1]]
        if values[0] is not None and outs[1:]:
            for layer, gain in [(v, GAIN) for v in values] + [(o, 1 / GAIN) for o in outs]:
                if layer is not None:
                    layer.weight.data.mul_(gain)
                    if gain > 1 and layer.bias is not None:
                        layer.bias.data.mul_(gain)
    with nag.guide(subject.pipe, "a blue square", scale=SCALE, alpha=0.5):
        assert difference(subject.generate(), expected) < 1e-3  # the same network, by larger numbers
    subject.pipe.to(torch.float16)
    largest = []
    for module in subject.denoiser.modules():
        if hasattr(module, "to_v"):
            module.to_v.register_forward_hook(lambda m, a, out: largest.append(float(out.abs().max())))
    with nag.guide(subject.pipe, "a blue square", scale=SCALE, alpha=0.5):
        guided = subject.generate()
    plain = subject.generate()
    assert SCALE * max(largest) > torch.finfo(torch.float16).max > max(largest)
    assert torch.isfinite(guided).all()
    assert difference(guided.float(), plain.float()) > 0.01
