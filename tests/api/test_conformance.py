"""Every operation under schemathesis, all checks, in a short form; `make conformance` runs the long one."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.api.conformance import SECRET, run

pytestmark = pytest.mark.slow  # runs schemathesis over every route

#: By whether keys are asked for: the phases, and at the least so many cases.
SHORT = {True: ("coverage", 500), False: ("examples,fuzzing", 20)}


@pytest.mark.parametrize("keyed", SHORT)
async def test_no_answer_is_a_fault_or_undocumented(tmp_path: Path, keyed: bool) -> None:
    phases, least = SHORT[keyed]
    found = await run(tmp_path, keyed=keyed, options=("--phases", phases, "--max-examples", "2", "--seed", "1"))
    print(f"{found.cases} cases")
    assert found.passed, found.said
    assert found.cases >= least
    assert "unexpected_error" not in found.log
    assert SECRET not in found.log
    assert re.search(r"Tested: +\d\d", found.said)
