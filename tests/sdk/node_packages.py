"""The npm packages of tests/sdk/node/package.json, installed once into .tools/npm."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SCRIPTS = Path(__file__).with_name("node")
#: Node finds a script's packages in the folders above it.
FOLDER = ROOT / ".tools" / "npm"
INSTALL_S = 120


def installed() -> Path:
    """The folder that holds node_modules and a copy of our scripts. Skips the test where it cannot be had."""
    for program in ("node", "npm"):
        if shutil.which(program) is None:
            pytest.skip(f"no {program} on the PATH")
    FOLDER.mkdir(parents=True, exist_ok=True)
    wanted, have = (SCRIPTS / "package.json").read_text(), FOLDER / "installed.json"
    if not have.exists() or have.read_text() != wanted:
        (FOLDER / "package.json").write_text(wanted)
        command = ["npm", "install", "--no-audit", "--no-fund", "--no-package-lock", "--loglevel=error"]
        done = subprocess.run(command, cwd=FOLDER, capture_output=True, text=True, timeout=INSTALL_S)
        if done.returncode != 0:
            pytest.skip(f"npm cannot install: {done.stderr.strip()[-300:]}")
        have.write_text(wanted)
    for script in SCRIPTS.iterdir():
        shutil.copy(script, FOLDER)
    return FOLDER


def node(script: str, *arguments: str) -> str:
    """What the script prints."""
    folder = installed()
    done = subprocess.run(["node", script, *arguments], cwd=folder, capture_output=True, text=True, timeout=100)
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout
