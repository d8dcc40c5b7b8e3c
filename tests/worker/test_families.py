"""Pipeline calls of several families, joined and alone: NAG, CFG, prompts and seeds of each row's own."""

from __future__ import annotations

from collections.abc import Callable
from unittest.mock import Mock

import numpy as np
import pytest
import torch

import nag
from app.jobs import Guidance, Job
from app.worker.engine.pipeline_call import call_module
from app.worker.prompts.encoder_memo import EncoderMemo
from app.worker.recorder import Event, Recorder
from nag.families.flux import Flux
from tests.tiers import slow_but
from tests.worker.generate import generate, make_calls
from tests.worker.tiny_models import TINY_CASES, image_side, tiny_model

Make = Callable[..., Job]
TOLERANCE = 1e-4  # of pixels in [0, 1]
NAMES = (
    "flux", "sd", "sdxl", "sd3", "qwen-image", "sana", "sana-sprint", "pixart", "chroma", "z-image", "krea2",
    "auraflow",
)  # fmt: skip


@pytest.mark.parametrize("cfg", [False, True])
@pytest.mark.parametrize("name", slow_but(("flux", "sdxl"), NAMES))
def test_an_image_is_the_same_alone_and_joined_with_others(name: str, cfg: bool, make_job: Make) -> None:
    if cfg and TINY_CASES[name].cfg is None:
        pytest.skip("has no CFG")
    model, side = tiny_model(name), image_side(name)
    scales = [2.0, 5.0, 1.0] if cfg else [1.0, 1.0, 1.0]
    steps = [2, 2, 2] if name == "sana-sprint" else [3, 2, 4]
    nags = [Guidance(4.0, 2.5, 0.5, 1.0, "a red shape"), None, Guidance(2.0, 2.0, 0.25, 0.6, "")]
    jobs = [
        make_job(
            f"{i}", prompt=("a red circle", "a blue square", "a green circle")[i], seed=i, width=side, height=side,
            num_inference_steps=steps[i], guidance_scale=scales[i], nag=nags[i],
            negative_prompt=("a triangle", None, "a red square")[i],
        )
        for i in range(3)
    ]  # fmt: skip
    memo, recorder = EncoderMemo(2**30), Recorder()
    alone = [generate(model, job)[0] for job in jobs]
    joined = generate(model, *jobs, memo=memo, recorder=recorder)
    misses = recorder.of(Event.PROMPT_MISS)
    again = generate(model, *jobs, memo=memo, recorder=recorder)
    assert [image.batch_size for image in joined] == [3, 3, 3]
    assert [image.batch_size for image in alone] == [1, 1, 1]
    for i, image in enumerate(alone):
        assert np.abs(image.pixels - joined[i].pixels).max() < TOLERANCE, i
        assert np.abs(image.pixels - again[i].pixels).max() < TOLERANCE, i
        assert image.applied == joined[i].applied
    assert recorder.of(Event.PROMPT_MISS) == misses > 0
    assert max(np.abs(image.pixels - alone[0].pixels).max() for image in alone[1:]) > 10 * TOLERANCE


@pytest.mark.parametrize("reason", ["cannot join", "no family"])
def test_calls_that_cannot_join_take_turns_and_change_no_other(
    reason: str, make_job: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    if reason == "cannot join":
        monkeypatch.setattr(Flux, "cannot_join", "for a test")
    else:
        monkeypatch.setattr(nag, "attach", Mock(side_effect=nag.UnsupportedPipeline("for a test")))
    model, side = tiny_model("flux"), image_side("flux")
    guidance = None if reason == "no family" else Guidance(4.0, 2.5, 0.5, 1.0, "a red shape")
    jobs = [
        make_job(f"{i}", seed=i, width=side, height=side, num_inference_steps=2 + i, nag=guidance if i else None)
        for i in range(3)
    ]
    alone = [generate(model, job)[0] for job in jobs]
    calls = make_calls(model, *jobs)
    with torch.no_grad():
        for call in calls:
            call.start()
        while waiting := [call for call in calls if not call.has_ended]:
            keys = [call.suspended.key for call in waiting if call.suspended.module.kind == "denoiser"]
            assert len({*keys}) == len(keys)
            for call in waiting:
                call.resume(call_module([call])[0])
    for call, expected in zip(calls, alone, strict=True):
        assert call.error is None
        assert np.array_equal(call.made.pixels, expected.pixels)
        assert call.made.applied == expected.applied
        assert call.made.batch_size == 1
