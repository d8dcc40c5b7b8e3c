from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
import torch

import nag
from tests.nag import oracle
from tests.nag.support import Subject, difference

INSTRUCTION = ["a small shape", "on a background"]
NEGATIVE = "a blue square"


@pytest.fixture
def sana() -> Subject:
    return Subject.named("sana")


def test_the_instruction_stands_before_the_prompt_and_not_before_the_negative(sana: Subject) -> None:
    options: dict[str, Any] = {"complex_human_instruction": INSTRUCTION}
    with nag.guide(sana.pipe, NEGATIVE):
        by_text = sana.generate(**options)
    with torch.no_grad():
        _, _, embeds, mask = sana.pipe.encode_prompt(
            "a red circle", True, negative_prompt=NEGATIVE, max_sequence_length=15, **options
        )
    with nag.guide(sana.pipe, negative_prompt_embeds=embeds, negative_prompt_attention_mask=mask):
        assert torch.equal(sana.generate(**options), by_text)
    with_instruction = sana.pipe.encode_prompt(NEGATIVE, False, max_sequence_length=15, **options)[0]
    assert not torch.equal(with_instruction, embeds)


class Refiner(Subject):
    """SANA-WM's second stage: five frames, of which the last four are refined in two blocks of three steps."""

    def generate(
        self,
        prompt: str | list[str] | None = "a red circle",
        seeds: Sequence[int] | None = None,
        *,
        cfg: bool = False,
        **options: Any,
    ) -> torch.Tensor:
        channels = self.pipe.transformer.config.in_channels
        latents = torch.randn(1, channels, 5, 2, 2, generator=torch.Generator().manual_seed(1))
        generator = torch.Generator().manual_seed(0)
        return self.pipe(latents, prompt, generator=generator, output_type="latent", **self.case.options)


def test_the_refiner_is_the_method_written_out_on_two_prompts() -> None:
    models = pytest.importorskip("tests.tiny.sana_wm", reason="this diffusers lacks it", exc_type=ImportError)
    refiner = Refiner(models.REFINER)
    plain = refiner.generate()
    expected = oracle.generate(refiner, "a red circle", NEGATIVE, 9.0, 1.5, 0.7)
    with nag.guide(refiner.pipe, NEGATIVE, scale=9.0, tau=1.5, alpha=0.7) as guidance:
        guided = refiner.generate()
    assert difference(guided, expected) < 1e-5
    assert difference(guided, plain) > 0.01
    assert (guidance.guided_steps, guidance.plain_steps) == (6, 0)
    with nag.guide(refiner.pipe, NEGATIVE, end=0.5) as guidance:  # its timesteps are 909, 725 and 422
        refiner.generate()
    assert (guidance.guided_steps, guidance.plain_steps) == (4, 2)
    assert torch.equal(refiner.generate(), plain)
