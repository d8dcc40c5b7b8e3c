"""The benchmarks of a guided step, on a small random model."""

from __future__ import annotations

import sys
from typing import Any

import pytest
import torch

import nag
from benchmarks import nag_cost, nag_regression, report
from benchmarks.denoisers import Denoiser, Draw
from benchmarks.joining.services import ROOT
from tests.nag.support import Subject

pytestmark = pytest.mark.slow  # runs a benchmark


def small_flux(draw: Any, full: Any) -> Denoiser:
    assert not full
    subject = Subject.named("flux", steps=1)
    (call,), _ = subject.calls("a red circle")
    texts = ("encoder_hidden_states", "pooled_projections")
    prompt = {name: call.pop(name) for name in texts}
    for name in ("timestep", "return_dict", "joint_attention_kwargs"):
        call.pop(name, None)
    negative = subject.encode("a blue square")
    return Denoiser(subject.pipe, "small Flux.1", lambda shrink: call, draw.shrink, (prompt, prompt), negative, 1e-3)


@pytest.fixture(autouse=True)
def flux(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(nag_cost, "MAKERS", {"flux": small_flux})


@pytest.mark.skipif(torch.cuda.is_available(), reason="a trial runs without a CUDA device only")
def test_without_a_cuda_device_a_trial_names_kernels_and_stores_nothing(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["nag_cost", "--device", "cuda", "--full", "--family", "flux"])
    monkeypatch.setattr(report, "write", pytest.fail)
    nag_cost.main()
    printed = capsys.readouterr().out
    assert "No CUDA device" in printed
    # Merged attention of Flux: the image once, then both prompts, in each of its blocks.
    (merged,) = {line.split(" | ")[0] for line in printed.splitlines() if line.endswith("| cuda_flash |")}
    assert merged == "| _scaled_dot_product_flash_attention_for_cpu"
    assert "| NAG, ours |" in printed


def test_frames_of_a_guided_attention_call_are_counted() -> None:
    work = small_flux(Draw("cpu", torch.float32), full=False)
    with torch.no_grad():
        per_call, per_step = nag_regression.count_frames(work, nag.guide)
    assert 0 < per_call < per_step


def test_another_checkouts_library_is_imported_beside_this_one() -> None:
    other = nag_regression.load_library(ROOT)
    assert other is not nag
    assert other.guide is not nag.guide
    assert sys.modules["nag"] is nag
