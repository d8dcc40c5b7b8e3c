from __future__ import annotations

import pytest

from tests import tiny
from tests.nag.support import Subject

#: One pipeline for each layout. Joint attention: CFG as a call of its own, the text behind the image, a masked text.
#: Cross attention: CFG in one batch, several denoisers in turn, a masked text, a row for each frame. Text that joins
#: behind its refiners, and a list of texts.
LAYOUTS = ("flux", "sd3", "qwen-image", "sd", "wan-two", "sana", "animatediff", "lumina2", "z-image")


def _subject(case):
    """A small pipeline, whose tests must leave it as they found it."""
    subject = Subject(case, steps=2)
    processors = subject.processors
    yield subject
    assert subject.processors == processors
    assert "encode_prompt" not in vars(subject.pipe)
    modules = [module for denoiser in subject.denoisers for module in denoiser.modules()]
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in modules)


# Of a module: then all tests of one pipeline run in turn, and it is made once.
@pytest.fixture(scope="module", params=tiny.CASES, ids=lambda case: case.name)
def subject(request):
    """The small pipeline of each family, and of each form of it."""
    yield from _subject(request.param)


@pytest.fixture(
    scope="module", params=[case for case in tiny.CASES if case.name in LAYOUTS], ids=lambda case: case.name
)
def layout(request):
    """One small pipeline for each layout."""
    yield from _subject(request.param)


@pytest.fixture(params=tiny.CASES, ids=lambda case: case.name)
def case(request):
    """Each family's case, for tests that change the pipeline."""
    return request.param


@pytest.fixture
def flux():
    return Subject(next(case for case in tiny.CASES if case.name == "flux"))
