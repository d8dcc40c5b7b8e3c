"""Perturbed attention guidance (PAG): its rows stay plain beside guided ones, or the pipeline is refused."""

from __future__ import annotations

from typing import Any

import diffusers
import pytest

import nag
from tests.nag.support import Subject, difference

NEGATIVE = "a blue square"
#: Families whose PAG pipelines are cases of their own (`tests.tiny.CASES`).
CASES = {"HunyuanDiTPAG", "KolorsPAG", "PixArtSigmaPAG", "SanaPAG"}
#: Of the other pipelines that are guided the one that runs here, by the case whose components it has.
GUIDED = {"sd": "StableDiffusionPAG", "sdxl": "StableDiffusionXLPAG", "animatediff": "AnimateDiffPAG"}
#: Forms of these by the same denoiser calls.
FORMS = {
    f"{model}{form}"
    for model in ("StableDiffusion", "StableDiffusionXL")
    for form in ("ControlNetPAG", "PAGImg2Img", "PAGInpaint")
} | {"StableDiffusionControlNetPAGInpaint", "StableDiffusionXLControlNetPAGImg2Img"}
REFUSED = {"StableDiffusion3PAG", "StableDiffusion3PAGImg2Img"}


def subject_of(name: str) -> Subject:
    return Subject.named(name)


def test_every_pipeline_of_diffusers_is_known() -> None:
    names = {name.removesuffix("Pipeline") for name in dir(diffusers) if "PAG" in name and name.endswith("Pipeline")}
    assert names == CASES | set(GUIDED.values()) | FORMS | REFUSED


@pytest.mark.parametrize("cfg", [False, True])
@pytest.mark.parametrize("name", GUIDED)
def test_the_prompts_own_rows_alone_are_guided_and_as_without_perturbed_ones(name: str, cfg: bool) -> None:
    subject, call = subject_of(name), {"cfg": cfg, "negative_prompt": "a triangle"}
    with nag.guide(subject.pipe, NEGATIVE, scale=9.0):
        (expected,) = subject.calls_of_a_step("a red circle", **call)
    kind = getattr(diffusers, f"{GUIDED[name]}Pipeline")
    subject.pipe = kind(**subject.pipe.components, pag_applied_layers="mid")
    subject.pipe.set_progress_bar_config(disable=True)
    processors = subject.processors
    (plain,) = subject.calls_of_a_step("a red circle", **call, pag_scale=2.0)
    with nag.guide(subject.pipe, NEGATIVE, scale=9.0) as guidance:
        (guided,) = subject.calls_of_a_step("a red circle", **call, pag_scale=2.0)
    assert guidance.guided_steps == 1
    assert len(guided) == len(expected) + 1
    assert difference(guided[:-1], expected) < 1e-5
    assert difference(guided[-1], plain[-1]) < 1e-6
    assert difference(guided[-2], plain[-2]) > 1e-3
    assert subject.processors == processors


@pytest.mark.parametrize("form", sorted(REFUSED))
def test_stable_diffusion_3_is_refused(form: Any) -> None:
    parts = subject_of("sd3").pipe.components
    adapter = ("image_encoder", "feature_extractor")
    parts = {name: part for name, part in parts.items() if name not in adapter}
    pipe = getattr(diffusers, f"{form}Pipeline")(**parts, pag_applied_layers="blocks.1")
    with pytest.raises(nag.UnsupportedPipeline, match="perturbed"), nag.guide(pipe, NEGATIVE):
        pass
