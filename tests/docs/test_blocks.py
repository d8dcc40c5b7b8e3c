"""Runs the code blocks of the documentation, page by page, as a reader would.

A page's blocks run in one folder and in their order: Python in one namespace, shell each by itself, TOML as a catalog.
Addresses of a server become that of a running one. A block that cannot run has `<!-- not run: reason -->` above it.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import yaml

from app.catalog import Catalog
from app.settings import Settings
from tests.docs.test_links import ROOT, pages

pytestmark = pytest.mark.slow  # starts a service and programs

BLOCK = re.compile(
    r"^(?:<!-- not run: (?P<reason>[^\n]+) -->\n)?```(?P<language>\w+)\n(?P<code>.*?)^```$", re.MULTILINE | re.DOTALL
)
SERVER = "127.0.0.1:8000"
#: Languages of blocks that are shown and not run.
SHOWN = {"bibtex", "mermaid", "nginx"}


class Block(NamedTuple):
    language: str
    code: str


def blocks(page: Path) -> list[Block]:
    """Returns the blocks of a page that run."""
    found = (match for match in BLOCK.finditer(page.read_text()) if match["reason"] is None)
    return [Block(match["language"], match["code"]) for match in found if match["language"] not in SHOWN]


PAGES = {
    str(page.relative_to(ROOT)): page
    for page in pages()
    if page.parent in (ROOT, ROOT / "examples") or (ROOT / "docs") in page.parents
}


@pytest.mark.usefixtures("own_families")
@pytest.mark.parametrize("name", [name for name, page in PAGES.items() if blocks(page)])
def test_blocks_run(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> None:
    runs = blocks(PAGES[name])
    url = f"http://{SERVER}"
    if any(SERVER in code or "nag-server generate" in code for _, code in runs):
        url = request.getfixturevalue("embedded_service")
    (tmp_path / "app").symlink_to(ROOT / "app")
    (tmp_path / ".venv").symlink_to(sys.prefix)
    shutil.copy(ROOT / "tests/docs/red.png", tmp_path)
    monkeypatch.chdir(tmp_path)
    namespace: dict[str, Any] = {"__name__": "__main__"}
    for language, code in runs:
        RUNNERS[language](code.replace(SERVER, url.removeprefix("http://")), namespace, url)


def run_python(code: str, namespace: dict[str, Any], url: str) -> None:
    exec(compile(code, "block", "exec"), namespace)


def run_shell(code: str, namespace: dict[str, Any], url: str) -> None:
    Path(".curlrc").write_text("fail-with-body\n")  # an answer that is an error ends the block
    environment = os.environ | {
        "PATH": os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]]),
        "PYTHONPATH": str(ROOT),
        "CURL_HOME": str(Path.cwd()),
        "NAG_PORT": url.rpartition(":")[2],
        "NAG_DATA_DIR": str(Path.cwd() / "data"),
    }
    done = subprocess.run(["bash", "-euo", "pipefail", "-c", code], env=environment, capture_output=True, text=True)
    assert done.returncode == 0, f"{code}\n{done.stdout}\n{done.stderr}"


def load_catalog(code: str, namespace: dict[str, Any], url: str) -> None:
    Path("mine.toml").write_text(code)
    Catalog.load(Settings(catalog=Path("mine.toml")))


RUNNERS = {
    "python": run_python,
    "sh": run_shell,
    "toml": load_catalog,
    "json": lambda code, namespace, url: json.loads(code),
    "yaml": lambda code, namespace, url: yaml.safe_load(code),
}


def test_every_language_is_known() -> None:
    languages = {match["language"] for page in PAGES.values() for match in BLOCK.finditer(page.read_text())}
    assert languages <= {*RUNNERS, *SHOWN}
    assert len([name for name, page in PAGES.items() if blocks(page)]) > 10
