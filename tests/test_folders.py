"""Folders that cannot be written to are named in one line."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from app.artifacts import Artifacts
from app.folders import FolderError
from app.settings import Settings
from tests.tiers import slow_but

ROOT = Path(__file__).parents[1]


@pytest.mark.parametrize("command", slow_but(["up"], ["api", "worker", "up"]))
def test_a_command_ends_with_one_line(command: str, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    environment = os.environ | {"NAG_DATA_DIR": str(tmp_path / "file" / "data"), "NAG_PORT": "0"}
    done = subprocess.run(
        [sys.executable, "-m", "app.cli", command], env=environment, cwd=ROOT,
        capture_output=True, text=True, check=False, timeout=100,
    )  # fmt: skip
    assert done.returncode == 1
    [line] = done.stderr.splitlines()
    assert line.startswith(f"nag-server: the folder {tmp_path}/file/data")
    assert line.endswith(
        "cannot be created (Not a directory): make it writable for this user, or set NAG_DATA_DIR to another folder"
    )


def test_a_read_only_folder_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "access", lambda path, mode: False)  # root may write everywhere but to a read-only disk
    settings = Settings(artifacts_url=f"file://{tmp_path}/artifacts")
    with pytest.raises(FolderError, match=r"artifacts cannot be written to: .* set NAG_ARTIFACTS_URL"):
        Artifacts.open(settings)
