"""Generators of clients, each in a folder of its own: what they need fits the service's versions ill."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

TOOLS = Path(__file__).parents[2] / ".tools"
INSTALL_S = 300


def installed(name: str, *requirements: str) -> Path:
    """The folder to put on PYTHONPATH. Skips the test where it cannot be had."""
    folder = TOOLS / name
    done_file, wanted = folder / "installed.txt", "\n".join(requirements)
    if not done_file.exists() or done_file.read_text() != wanted:
        pip = [
            sys.executable,
            "-m",
            "pip",
            "install",
            "--quiet",
            "--disable-pip-version-check",
            "--no-deps",
            "--upgrade",
        ]
        done = subprocess.run(
            [*pip, "--target", str(folder), *requirements], capture_output=True, text=True, timeout=INSTALL_S
        )
        if done.returncode != 0:
            pytest.skip(f"pip cannot install {name}: {done.stderr.strip()[-300:]}")
        done_file.write_text(wanted)
    return folder
