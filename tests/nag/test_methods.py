"""Other rules of guidance than NAG, and guidance in some blocks alone; one case per layout of attention."""

from __future__ import annotations

from typing import Any

import pytest
import torch

import nag
from nag.families import family_of
from nag.params import METHODS
from tests.nag import oracle
from tests.nag.support import STEPS, Subject, difference, keep_one_block_of_each_kind
from tests.tiers import slow_but

PROMPTS, NEGATIVES = ["a red circle", "a green shape"], ["a blue square", "a triangle"]
NUMBERS: dict[str, Any] = {"scale": 3.0, "tau": 1.5, "alpha": 0.7}
#: Merged by log-sum-exp, masked, by token roles, row by row, image queries alone, and cross attention of each kind.
#: The last is joint and cross attention in turn.
LAYOUTS = ["flux", "sd3", "qwen-image", "z-image", "prx", "sdxl", "sana", "wan", "hunyuandit", "fibo2"]


@pytest.fixture(params=slow_but(["flux", "z-image", "sana"], LAYOUTS), scope="module")
def subject(request: pytest.FixtureRequest) -> Subject:
    return make(request.param, steps=2)


def make(name: str, steps: int = STEPS) -> Subject:
    return Subject.named(name, steps=steps)


def negatives_of(subject: Subject) -> Any:
    return [NEGATIVES[0], "a green square"] if subject.case.one_length else NEGATIVES


@pytest.mark.parametrize("method", [("orthogonal",), ("vsf",), ("vsf", "nag"), ("orthogonal", "vsf")])
def test_it_is_the_method_written_out_on_two_prompts(subject: Subject, method: tuple[str, str] | tuple[str]) -> None:
    expected = oracle.generate(subject, PROMPTS, negatives_of(subject), **NUMBERS, method=method)
    with nag.guide(subject.pipe, negatives_of(subject), **NUMBERS, method=method):
        guided = subject.generate(PROMPTS)
    assert difference(guided, expected) < 1e-5
    for index, other in enumerate("nag" if name != "nag" else "vsf" for name in method):
        with nag.guide(subject.pipe, negatives_of(subject), **NUMBERS, method=other):
            assert difference(guided[index], subject.generate(PROMPTS)[index]) > 1e-4


def test_blocks_that_do_not_guide_attend_to_the_prompt_alone(subject: Subject) -> None:
    """The oracle counts them as they are called, which in UNets is another order: there the first is the first."""
    blocks = [0]
    expected = oracle.generate(subject, PROMPTS, negatives_of(subject), **NUMBERS, blocks=blocks)
    with nag.guide(subject.pipe, negatives_of(subject), **NUMBERS, blocks=blocks):
        guided = subject.generate(PROMPTS)
    assert difference(guided, expected) < 1e-5
    assert difference(guided, subject.generate(PROMPTS)) > 1e-3
    with nag.guide(subject.pipe, negatives_of(subject), **NUMBERS):
        assert difference(guided, subject.generate(PROMPTS)) > 1e-4


@pytest.mark.parametrize("blocks", [[], [-1], [0, 10_000]])
def test_blocks_that_a_model_does_not_have_are_refused_with_its_count(blocks: Any) -> None:
    pipe = make("flux").pipe
    count = sum(hasattr(module, "processor") for module in pipe.transformer.modules())
    message = f"blocks: must be places of attention modules, 0 to {count - 1} in this FluxTransformer2DModel, got"
    with pytest.raises(nag.InvalidParameter, match=message), nag.guide(pipe, NEGATIVES, blocks=blocks):
        pass
    with (
        nag.attach(pipe.transformer) as attached,
        pytest.raises(nag.InvalidParameter, match=message),
        attached.rows([None], blocks=blocks),
    ):
        pass


@pytest.mark.parametrize("options", [{"blocks": [0]}, {"method": "vsf"}])
def test_the_authors_layout_has_neither_blocks_nor_other_methods(options: dict[str, Any]) -> None:
    with (
        pytest.raises(nag.InvalidParameter, match="reference"),
        nag.guide(make("flux").pipe, NEGATIVES, reference=True, **options),
    ):
        pass


@pytest.mark.parametrize("name", ["sd3", "sdxl"])
def test_under_cfg_rows_of_several_methods_are_what_they_are_alone(name: str) -> None:
    """CFG's rows stand ahead of theirs; a row past its end rides as plain whatever its method."""
    subject = make(name)
    prompts, methods, ends = [*PROMPTS, "a shape"], ["vsf", "orthogonal", "vsf"], [1.0, 1.0, 0.5]
    with nag.guide(subject.pipe, NEGATIVES[0], scale=3.0, method=methods, end=ends):
        together = subject.generate(prompts, cfg=True)
    for row, (prompt, method, end) in enumerate(zip(prompts, methods, ends, strict=True)):
        with nag.guide(subject.pipe, NEGATIVES[0], scale=3.0, method=method, end=end):
            assert difference(subject.generate(prompt, seeds=[row], cfg=True)[0], together[row]) < 1e-5


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("flux", {"blocks": [0], "method": ["vsf", "orthogonal"]}),
        ("sana", {"blocks": [0], "method": ["vsf", "orthogonal"]}),
        ("flux", {"method": "vsf"}),
    ],
)
def test_compiled_attention_gives_the_same(name: str, options: dict[str, Any]) -> None:
    subject = make(name, steps=2)
    keep_one_block_of_each_kind(subject.denoiser)
    with nag.guide(subject.pipe, NEGATIVES[0], scale=3.0, **options):
        expected = subject.generate(PROMPTS)
    torch.compiler.reset()
    for attention in family_of(subject.pipe).attentions(subject.denoiser):
        attention.compile(fullgraph=True, backend="eager")
    with nag.guide(subject.pipe, NEGATIVES[0], scale=3.0, **options):
        assert difference(subject.generate(PROMPTS), expected) < 1e-5


def test_rows_of_one_denoiser_call_may_have_different_methods() -> None:
    subject = make("flux")
    (call, *_), _ = subject.calls(num_inference_steps=1)
    embeds = nag.NegativeEmbeds(subject.calls(NEGATIVES[0], num_inference_steps=1)[0][0]["encoder_hidden_states"])

    @torch.no_grad()
    def run(method: Any) -> Any:
        with nag.attach(subject.denoiser) as attached, attached.rows([nag.RowGuidance(embeds, 3.0, 2.5, 0.5, method)]):
            return subject.denoiser(**call)[0]

    nag_, orthogonal, vsf = (run(method) for method in METHODS)
    assert min(difference(nag_, orthogonal), difference(nag_, vsf), difference(orthogonal, vsf)) > 1e-4
    with pytest.raises(nag.InvalidParameter, match="method: must be one of nag, orthogonal, vsf, got 'apg'"):
        nag.RowGuidance(embeds, 3.0, 2.5, 0.5, "apg")
