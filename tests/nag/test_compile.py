"""`torch.compile`, as users apply it: what a step does is decided outside, and the denoiser is one graph."""

import pytest
import torch

import nag
from tests.nag.support import Subject, difference

NEGATIVE = "a blue square"

WAYS = {
    "in place": lambda subject: subject.denoiser.compile(fullgraph=True, backend="eager"),
    "wrapped": lambda subject: subject.wrap(torch.compile(subject.denoiser, fullgraph=True, backend="eager")),
}


@pytest.mark.filterwarnings("ignore:Dynamo detected a call to a `functools.lru_cache`")
@pytest.mark.parametrize("way", WAYS)
def test_a_compiled_denoiser_is_one_graph_and_gives_the_same(case, way):
    if not case.one_graph:
        pytest.skip("torch.compile makes no graph of the plain denoiser either")
    with nag.guide((eager := Subject(case)).pipe, NEGATIVE, scale=6.0, end=0.5):
        expected = eager.generate()
    subject = Subject(case)
    WAYS[way](subject)
    torch.compiler.reset()
    with nag.guide(subject.pipe, NEGATIVE, scale=6.0, end=0.5) as guidance:
        compiled = subject.generate()
    assert guidance.guided_steps > 0
    assert guidance.plain_steps > 0
    assert difference(compiled, expected) < 1e-5
    assert difference(subject.generate(), expected) > 1e-3
