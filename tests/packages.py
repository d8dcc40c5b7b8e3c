"""Packages that only single tests need, installed once per checkout. Tests are skipped if they cannot be fetched."""

from __future__ import annotations

import fcntl
import json
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

TOOLS = Path(__file__).parents[1] / ".tools"
#: The time that a registry has to answer one request, and that an installation has to end.
ANSWER_S, INSTALL_S = 60, 300


def install_npm(name: str, package: Mapping[str, Any]) -> Path:
    """Installs the dependencies of a package.json. Returns the folder, which has them in node_modules."""
    for program in ("node", "npm"):
        if shutil.which(program) is None:
            pytest.skip(f"no {program} on the PATH")
    options = [f"--fetch-timeout={ANSWER_S * 1000}", "--fetch-retries=0", "--no-audit", "--no-fund", "--loglevel=error"]
    with _missing(name, text := json.dumps(package)) as (folder, is_missing):
        if is_missing:
            (folder / "package.json").write_text(text)
            _run(["npm", "install", "--no-package-lock", *options], folder)
    return folder


def install_python(name: str, *requirements: str) -> Path:
    """Installs Python packages without their dependencies. Returns the folder for PYTHONPATH."""
    options = ["--quiet", "--disable-pip-version-check", f"--timeout={ANSWER_S}", "--retries=0", "--no-deps"]
    with _missing(name, "\n".join(requirements)) as (folder, is_missing):
        if is_missing:
            pip = [sys.executable, "-m", "pip", "install", *options, "--upgrade", "--target", str(folder)]
            _run([*pip, *requirements], folder)
    return folder


@contextmanager
def _missing(name: str, wanted: str) -> Iterator[tuple[Path, bool]]:
    """The folder of these packages, and whether they are yet to be installed. Other test processes wait meanwhile."""
    folder = TOOLS / name
    folder.mkdir(parents=True, exist_ok=True)
    installed = folder / "installed.txt"
    with (folder / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield folder, not installed.exists() or installed.read_text() != wanted
        installed.write_text(wanted)


def _run(command: Sequence[str], folder: Path) -> None:
    try:
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=INSTALL_S)
    except subprocess.TimeoutExpired:
        pytest.skip(f"cannot install {folder.name}: not done within {INSTALL_S} s")
    if done.returncode != 0:
        pytest.skip(f"cannot install {folder.name}: {' '.join(done.stderr.split())[:300]}")
