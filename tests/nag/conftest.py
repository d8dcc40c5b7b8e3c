from __future__ import annotations

import pytest

from tests import tiny
from tests.nag.support import Subject

_made: dict[str, Subject] = {}


@pytest.fixture(params=tiny.CASES, ids=lambda case: case.name)
def subject(request):
    """Each family's small pipeline, made once: a test leaves it as it found it."""
    case = request.param
    if case.name not in _made:
        _made[case.name] = Subject(case)
    return _made[case.name]


@pytest.fixture(params=tiny.CASES, ids=lambda case: case.name)
def case(request):
    """Each family's case, for tests that change the pipeline."""
    return request.param


@pytest.fixture
def flux():
    return Subject(next(case for case in tiny.CASES if case.name == "flux"))
