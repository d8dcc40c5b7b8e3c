"""The page's modules hold to the types that their comments declare."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path

import pytest

from app.playground.files import FOLDER
from app.playground.vendor import MANIFEST
from tests.limits import HANG_S
from tests.packages import install_npm

pytestmark = pytest.mark.slow  # starts the TypeScript compiler

TYPESCRIPT = "5.9.3"
OPTIONS = {
    "allowJs": True, "checkJs": True, "noEmit": True, "strict": True, "skipLibCheck": True,
    "noUnusedLocals": True, "noUnusedParameters": True, "noImplicitReturns": True, "noFallthroughCasesInSwitch": True,
    "target": "es2022", "module": "es2022", "moduleResolution": "bundler", "lib": ["es2023", "dom", "dom.iterable"],
}  # fmt: skip


@pytest.fixture(scope="module")
def packages() -> Path:
    """The compiler, and lit-html with its declarations."""
    lit = json.loads(MANIFEST.read_text())["lit-html"]["version"]
    return install_npm("types", {"dependencies": {"typescript": TYPESCRIPT, "lit-html": lit}}) / "node_modules"


def test_types(packages: Path, tmp_path: Path) -> None:
    shutil.copytree(FOLDER, tmp_path / "page", ignore=shutil.ignore_patterns("vendor"))
    shutil.copytree(packages / "lit-html", tmp_path / "page" / "vendor" / "lit-html")
    (tmp_path / "tsconfig.json").write_text(json.dumps({"compilerOptions": OPTIONS, "include": ["page/js"]}))
    tsc = packages / ".bin" / "tsc"
    checked = subprocess.run([tsc, "-p", tmp_path], cwd=tmp_path, capture_output=True, text=True, timeout=HANG_S)
    assert (checked.returncode, checked.stdout) == (0, "")
