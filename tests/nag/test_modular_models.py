"""Modular pipelines of models that have no classic one, by the oracle on each denoiser call; and Cosmos 3's."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
import torch

import nag
from tests.nag import oracle
from tests.nag.support import Subject, difference
from tests.tiers import slow_but
from tests.tiny import cosmos3

models = pytest.importorskip("tests.tiny.modular", reason="this diffusers lacks some of them", exc_type=ImportError)
NEGATIVE = "a blue square"
STEPS = 2


class ModularSubject(Subject):
    """A small modular pipeline under test."""

    def generate(
        self,
        prompt: str | list[str] | None = "a red circle",
        seeds: Sequence[int] | None = None,
        *,
        cfg: bool = False,
        **options: Any,
    ) -> torch.Tensor:
        call = (
            {"num_inference_steps": max(STEPS, self.case.fewest_steps), "prompt": prompt}
            | dict(self.case.options)
            | options
        )
        if "sigmas" in call or self.case.name == "cosmos3-distilled":
            del call["num_inference_steps"]
        output = self.pipe(generator=torch.Generator().manual_seed(0), output=self.case.output, **call)
        return output[0] if isinstance(output, list) else output


CASES = {case.name: case for case in models.MODULAR}


@pytest.fixture(scope="module", params=slow_but(["flux3", "minimax-h3"], CASES))
def subject(request: pytest.FixtureRequest) -> ModularSubject:
    return ModularSubject(CASES[request.param])


pytestmark = pytest.mark.filterwarnings("ignore:flex_attention called without torch.compile")


def test_guidance_runs_at_every_step_until_it_ends(subject: ModularSubject) -> None:
    plain = subject.generate()
    with nag.guide(subject.pipe, NEGATIVE, scale=9.0, alpha=0.8) as guidance:
        assert difference(subject.generate(), plain) > 0.01
    assert (guidance.guided_steps, guidance.plain_steps) == (STEPS, 0)
    with nag.guide(subject.pipe, "a red circle", scale=9.0, alpha=0.8):
        assert difference(subject.generate(), plain) < 1e-6
    with nag.guide(subject.pipe, NEGATIVE, end=0.05) as guidance:
        subject.generate()
    assert (guidance.guided_steps, guidance.plain_steps) == (1, 1)
    assert torch.equal(subject.generate(), plain)


def test_it_is_the_method_written_out_on_two_prompts(subject: ModularSubject) -> None:
    expected = oracle.generate(subject, "a red circle", NEGATIVE, 9.0, 1.5, 0.7)
    with nag.guide(subject.pipe, NEGATIVE, scale=9.0, tau=1.5, alpha=0.7):
        guided = subject.generate()
    assert difference(guided, expected) < 1e-4  # some are frames that an autoencoder decoded
    assert difference(guided, subject.generate()) > 0.01


@pytest.mark.parametrize("guidance_scale", [1.0, 4.0])
def test_cosmos_3_is_the_same_by_its_modular_pipeline_as_by_its_classic_one(guidance_scale: float) -> None:
    call = cosmos3.OPTIONS | {"prompt": "a red circle", "num_inference_steps": STEPS, "guidance_scale": guidance_scale}
    classic = cosmos3.pipeline()
    modular = models.cosmos3_modular(classic)
    images = []
    for pipe, form in ((classic, {"output_type": "latent"}), (modular, {"output": "latents"})):
        with nag.guide(pipe, NEGATIVE, scale=9.0, alpha=0.8) as guidance:
            images.append(pipe(**call, **form, generator=torch.Generator().manual_seed(0)))
        assert (guidance.guided_steps, guidance.plain_steps) == (STEPS, 0)
    assert torch.equal(images[0].video, images[1])
