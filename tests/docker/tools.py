"""Programs of other people that the tests of this folder ask."""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


def find(name: str) -> str | None:
    """On the PATH, in this environment, or where `make helm` puts it."""
    folders = [os.environ.get("PATH", ""), str(Path(sys.executable).parent), str(ROOT / ".tools")]
    return shutil.which(name, path=os.pathsep.join(folders))


def needed(name: str) -> str:
    found = find(name)
    if found is None:
        pytest.skip(f"needs {name}")
    return found
