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
    for script in (*SCRIPTS.glob("*.mjs"), *SCRIPTS.glob("*.ts")):  # Node finds a script's packages beside it
        shutil.copy(script, folder)
    return folder


def node(script: str, *arguments: str, stdin: str = "") -> str:
    """Returns what the script prints."""
    command = ["node", script, *arguments]
    done = subprocess.run(command, cwd=installed(), input=stdin, capture_output=True, text=True, timeout=HANG_S)
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout
