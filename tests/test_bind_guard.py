"""No server for strangers without keys, unless it is said."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import httpx
import pytest

from app import bind_guard
from app.cli import main
from app.settings import Settings
from tests.limits import HANG_S


@pytest.mark.parametrize("host", ["127.0.0.1", "127.8.8.8", "::1", "localhost"])
def test_this_machine_needs_no_key(host: str) -> None:
    bind_guard.check_bind_address(Settings(host=host))


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "", "10.0.0.1", "fe80::1", "no-such-host.invalid", "0"])
def test_another_address_needs_keys(host: str, tmp_path: Path) -> None:
    with pytest.raises(bind_guard.InsecureBindError, match="--insecure"):
        bind_guard.check_bind_address(Settings(host=host))
    bind_guard.check_bind_address(Settings(host=host, api_keys_file=tmp_path / "keys.toml"))


@pytest.mark.parametrize("command", ["api", "up"])
def test_it_is_refused_in_one_line(
    command: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    monkeypatch.setenv("NAG_HOST", "0.0.0.0")
    monkeypatch.setenv("NAG_DATA_DIR", str(tmp_path))
    assert main([command]) == 1
    [line] = capsys.readouterr().err.splitlines()
    assert line.startswith("nag-server: NAG_HOST=0.0.0.0: ")
    assert "nag-server keys new" in line


#: `up` without its worker, which would load torch for nothing.
UP = "import app.supervisor; app.supervisor.device_sets = lambda *_: (); from app.cli import main; main()"


@pytest.mark.parametrize("start", [["-m", "app.cli", "api"], pytest.param(["-c", UP, "up"], marks=pytest.mark.slow)])
def test_who_says_so_may(start: list[str], tmp_path: Path) -> None:
    environment = os.environ | {"NAG_HOST": "0.0.0.0", "NAG_PORT": "0", "NAG_DATA_DIR": str(tmp_path)}
    process = subprocess.Popen(
        [sys.executable, *start, "--insecure"], env=environment, stdout=subprocess.PIPE, text=True
    )
    try:
        assert process.stdout is not None
        found = next(found for line in process.stdout if (found := re.search(r"http://0\.0\.0\.0:([0-9]+)", line)))
        assert httpx.get(f"http://127.0.0.1:{found[1]}/healthz", trust_env=False).status_code == 200
    finally:
        process.terminate()
        process.wait(HANG_S)
        assert process.stdout is not None
        process.stdout.close()
