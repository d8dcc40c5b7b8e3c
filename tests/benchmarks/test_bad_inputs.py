"""Every case of the table against one API process, which notes what it opens and whom it calls."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import httpx
import pytest

from benchmarks.bad_inputs.__main__ import ENVIRONMENT
from benchmarks.bad_inputs.case import KEY, Case
from benchmarks.bad_inputs.cases import CASES
from benchmarks.bad_inputs.sending import answer
from benchmarks.service_without_worker import paused

pytestmark = pytest.mark.slow  # starts a service

#: The API as the console script starts it, under Python's own audit.
AUDITED = """
import sys
notes = open(sys.argv.pop(1), "w", buffering=1)
def note(event, arguments):
    if event in ("open", "socket.connect", "socket.getaddrinfo", "subprocess.Popen", "os.system"):
        notes.write(f"{event} {arguments!r}\\n")
sys.modules["uvloop"] = None  # whose connections are not audited
from app.cli import main
import app.api.server
sys.addaudithook(note)
sys.exit(main())
"""


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, Path]]:
    folder = tmp_path_factory.mktemp("cases")
    with paused(folder, ("-c", AUDITED, str(folder / "audit")), **ENVIRONMENT) as (url, _):
        yield url, folder
        assert httpx.get(f"{url}/healthz", trust_env=False).status_code == 200
    log = (folder / "api.log").read_text()
    assert "unexpected_error" not in log
    assert "Traceback" not in log
    for private in (KEY, "a shape", "forged", "FLUSHALL", "{{7*7}}"):
        assert private not in log
    audit = (folder / "audit").read_text()
    assert "socket.connect" in audit
    assert [line for line in audit.splitlines() if line.startswith("socket") and "valkey" not in line] == []
    for never in ("passwd", "169.254", "evil.example", "subprocess.Popen", "os.system", "a.sh", "a.png"):
        assert never not in audit


def test_there_are_enough() -> None:
    assert len(CASES) >= 60
    assert len({(case.group, case.name) for case in CASES}) == len(CASES)


@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case.group}: {case.name}")
async def test_a_bad_input(running: tuple[str, Path], case: Case) -> None:
    address = urlsplit(running[0])
    found = await answer(address.hostname or "", address.port or 0, case)
    assert (found.status, found.code) == (case.status, case.code), found.message
    if found.status:
        assert "x-request-id" in found.headers
        assert found.headers["x-content-type-options"] == "nosniff"
