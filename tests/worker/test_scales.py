"""Every small pipeline that runs CFG: rows of a mixed batch come out as in a batch of their own scale, to the bit."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from typing import Any

import pytest
import torch

from app.worker.pipelines import takes_scale_a_row
from app.worker.scales import RowScale, row_scale, scales_become_rows
from tests.nag.support import Subject, difference
from tests.tiny import CASES, Case

SCALES = [2.0, 5.0, 3.5]
PROMPTS = ["a red circle", "a blue square", "a green circle"]
#: These take their scale as a part of the pipeline, which a request cannot change.
GUIDERS = ("hunyuan-image", "hunyuan-15", "motif-video")
SUBJECTS = [case for case in CASES if case.cfg is not None and case.takes != "one prompt" and case.name not in GUIDERS]
STEPS = 2
TOLERANCE = 1e-5  # of the norm, against the row alone; a batch of another size sums in another order


def generate(subject: Subject, scale: float, rows: Sequence[int]) -> Any:
    takes = inspect.signature(subject.pipe.__call__).parameters
    negatives = {"negative_prompt": ["a triangle"] * len(rows)} if "negative_prompt" in takes else {}
    name = "true_cfg_scale" if "true_cfg_scale" in takes else "guidance_scale"
    with scales_become_rows(scale) as made:
        handles = [each.register_forward_pre_hook(lambda *_: made()) for each in subject.denoisers]
        try:
            options = {"num_inference_steps": STEPS, name: scale} | negatives
            return subject.generate([PROMPTS[row] for row in rows], list(rows), cfg=True, **options)
        finally:
            for handle in handles:
                handle.remove()


@pytest.mark.parametrize("case", SUBJECTS, ids=lambda case: case.name)
def test_each_row_is_guided_by_its_own_scale(case: Case) -> None:
    subject = Subject(case)
    if not takes_scale_a_row(subject.pipe):
        with pytest.raises(ValueError, match="guidance scales meet a tensor"):
            generate(subject, RowScale(SCALES), [0, 1, 2])
        return
    mixed = generate(subject, RowScale(SCALES), [0, 1, 2])
    for row in (0, 1):
        assert torch.equal(mixed[row], generate(subject, SCALES[row], [0, 1, 2])[row])
    assert difference(mixed[0], generate(subject, SCALES[1], [0, 1, 2])[0]) > 1e-3


@pytest.mark.parametrize("name", ["sd", "sdxl", "sd3", "flux", "wan", "qwen-image", "sana", "pixart", "chroma"])
def test_a_row_is_what_it_is_alone(name: str) -> None:
    subject = Subject(next(case for case in CASES if case.name == name))
    mixed = generate(subject, RowScale(SCALES), [0, 1, 2])
    for row, scale in enumerate(SCALES):
        assert difference(mixed[row], generate(subject, scale, [row])[0]) < TOLERANCE


@pytest.mark.parametrize("name", ["flux", "sana-sprint", "hunyuan-video"])
def test_a_distilled_model_is_told_a_scale_a_row(name: str) -> None:
    """As its denoiser's `guidance`."""
    subject = Subject(next(case for case in CASES if case.name == name))
    told: list[Any] = []
    if name == "flux":
        subject.denoiser.register_to_config(guidance_embeds=True)

    def listen(_: Any, args: Any, kwargs: dict[str, Any]) -> None:
        told.append(kwargs["guidance"])
        raise InterruptedError

    def guidance(scale: float, rows: int) -> Any:
        with scales_become_rows(scale), pytest.raises(InterruptedError):
            subject.generate(PROMPTS[:rows], guidance_scale=scale)
        return told.pop()

    subject.denoiser.register_forward_pre_hook(listen, with_kwargs=True)
    alone = [guidance(scale, 1) for scale in SCALES]
    assert torch.equal(guidance(RowScale(SCALES), 3), torch.cat(alone))


def test_lcm_s_embedding_of_the_scale_is_a_row_s_own() -> None:
    with scales_become_rows(RowScale(SCALES)):
        made = torch.tensor(RowScale(SCALES) - 1).repeat(3)
    assert made.tolist() == [1.0, 4.0, 2.5]


def test_what_python_and_torch_make_of_it() -> None:
    scale = RowScale([2.0, 4.0])
    states = torch.ones(2, 3, 1)
    assert (scale > 3, scale == 4.0, scale <= 1) == (True, True, False)
    assert [each.scales for each in (scale - 1, 1 - scale, scale * 2, 2 * scale, scale + 1, scale / 2)] == [
        (1.0, 3.0),
        (-1.0, -3.0),
        (4.0, 8.0),
        (4.0, 8.0),
        (3.0, 5.0),
        (1.0, 2.0),
    ]
    for product in (scale * states, states * scale, torch.mul(states, scale), torch.lerp(0 * states, states, scale)):
        assert product[:, 0, 0].tolist() == [2.0, 4.0]
    assert (scale * states.half()).dtype == torch.float16
    with pytest.raises(ValueError, match="2 guidance scales meet a tensor of shape"):
        scale * torch.ones(3, 2)
    assert torch.full([1], scale).tolist() == [4.0]  # outside of the block torch sees a number
    assert type(row_scale([3.0, 3.0])) is float
