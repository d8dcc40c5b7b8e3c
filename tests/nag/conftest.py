"""Small pipelines as fixtures.

What makes them is imported by the processes that run tests alone. The one that hands the tests out would take as long
for it, before any of them begins.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.nag.support import Subject
    from tests.tiny import Case

#: One pipeline for each layout. Joint attention: CFG as a call of its own, the text behind the image, a masked text.
#: Cross attention: CFG in one batch, several denoisers in turn, a masked text, a row for each frame. Text that joins
#: behind its refiners, and a list of texts.
LAYOUTS = ("flux", "sd3", "qwen-image", "sd", "wan-two", "sana", "animatediff", "lumina2", "z-image")
#: Those of `make test`.
QUICK = ("flux", "qwen-image", "sd", "wan-two", "sana", "z-image")


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Runs a test of `subject` for all cases and one of `layout` for LAYOUTS, unless it has its own of that name.

    A case outside QUICK is slow: `make test-library` runs it.
    """
    own = {mark.args[0] for mark in metafunc.definition.iter_markers("parametrize")} | vars(metafunc.module).keys()
    for fixture in ("subject", "layout"):
        if fixture in metafunc.fixturenames and fixture not in own:
            from tests import tiny

            cases = [
                pytest.param(case, id=case.name, marks=() if case.name in QUICK else pytest.mark.slow)
                for case in tiny.CASES
                if fixture == "subject" or case.name in LAYOUTS
            ]
            metafunc.parametrize(fixture, cases, indirect=True)


def _unchanged(case: Case) -> Iterator[Subject]:
    """A small pipeline, whose tests must leave it as they found it."""
    from tests.nag.support import Subject

    subject = Subject(case, steps=2)
    processors = subject.processors
    yield subject
    assert subject.processors == processors
    assert "encode_prompt" not in vars(subject.pipe)
    modules = [module for denoiser in subject.denoisers for module in denoiser.modules()]
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in modules)


# Of a module: then all tests of one pipeline run in turn, and it is made once.
@pytest.fixture(scope="module")
def subject(request: pytest.FixtureRequest) -> Iterator[Subject]:
    """The small pipeline of each family, and of each form of it."""
    yield from _unchanged(request.param)


@pytest.fixture(scope="module")
def layout(request: pytest.FixtureRequest) -> Iterator[Subject]:
    """One small pipeline for each layout."""
    yield from _unchanged(request.param)


@pytest.fixture
def flux() -> Subject:
    from tests.nag.support import Subject

    return Subject.named("flux")
