"""`torch.compile`, as users apply it: what a step does is decided outside, and the denoiser is one graph."""

import pytest
import torch

import nag
from nag.families import family_of
from tests.nag.support import Subject, difference
from tests.tiny import CASES, FAMILY_CASES

NEGATIVE = "a blue square"

pytestmark = pytest.mark.filterwarnings("ignore:Dynamo detected a call to a `functools.lru_cache`")


def in_place(subject, whole):
    subject.denoiser.compile(fullgraph=whole, backend="eager")


def wrapped(subject, whole):
    subject.wrap(torch.compile(subject.denoiser, fullgraph=whole, backend="eager"))


def generate(subject, **options):
    with nag.guide(subject.pipe, NEGATIVE, scale=6.0, end=options.pop("end", 1.0)) as guidance:
        return subject.generate(**options), guidance


@pytest.mark.parametrize("case", FAMILY_CASES, ids=lambda case: case.name)
def test_a_guided_step_is_as_few_graphs_as_the_table_says(case):
    subject = Subject(case)
    expected, _ = generate(subject, num_inference_steps=case.fewest_steps)
    torch.compiler.reset()
    # Where the table says "in parts", it is the plain denoiser already that is not one graph.
    in_place(subject, family_of(subject.pipe).compiled == "one graph")
    assert difference(generate(subject, num_inference_steps=case.fewest_steps)[0], expected) < 1e-5


@pytest.mark.parametrize("apply", [in_place, wrapped])
@pytest.mark.parametrize("name", ["flux", "sd"])
def test_guided_and_plain_steps_of_a_compiled_denoiser_are_those_of_the_plain_one(name, apply):
    subject = Subject(next(case for case in CASES if case.name == name))
    expected, _ = generate(subject, end=0.5)
    torch.compiler.reset()
    apply(subject, True)
    compiled, guidance = generate(subject, end=0.5)
    assert guidance.guided_steps > 0
    assert guidance.plain_steps > 0
    assert difference(compiled, expected) < 1e-5
