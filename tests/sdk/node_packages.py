"""The npm packages of tests/sdk/node/package.json, installed once into .tools/npm."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path

from tests.limits import HANG_S
from tests.packages import install_npm

SCRIPTS = Path(__file__).with_name("node")


def installed() -> Path:
    """The folder that holds node_modules and a copy of our scripts. Skips the test where it cannot be had."""
    folder = install_npm("npm", json.loads((SCRIPTS / "package.json").read_text()))
    for script in ("openai.mjs", "typed.ts"):  # Node finds a script's packages beside it
        shutil.copy(SCRIPTS / script, folder)
    return folder


def node(script: str, *arguments: str) -> str:
    """What the script prints."""
    folder = installed()
    done = subprocess.run(["node", script, *arguments], cwd=folder, capture_output=True, text=True, timeout=HANG_S)
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout
