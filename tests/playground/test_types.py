"""The page's modules hold to the types that their comments declare."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path

import pytest

from app.playground.files import FOLDER
from app.playground.vendor import MANIFEST

TOOLS = Path(__file__).parents[2] / "build" / "types"
TYPESCRIPT = "5.9.3"
OPTIONS = {
    "allowJs": True, "checkJs": True, "noEmit": True, "strict": True, "skipLibCheck": True,
    "noUnusedLocals": True, "noUnusedParameters": True, "noImplicitReturns": True, "noFallthroughCasesInSwitch": True,
    "target": "es2022", "module": "es2022", "moduleResolution": "bundler", "lib": ["es2023", "dom", "dom.iterable"],
}  # fmt: skip


@pytest.fixture(scope="module")
def packages() -> Path:
    """The compiler, and lit-html with its declarations, fetched by npm once a checkout."""
    folder = TOOLS / "node_modules"
    lit = json.loads(MANIFEST.read_text())["lit-html"]["version"]
    wanted = {"typescript": TYPESCRIPT, "lit-html": lit}
    if all(_version(folder / name) == version for name, version in wanted.items()):
        return folder
    npm = shutil.which("npm")
    if npm is None:
        pytest.skip("npm is not here, and TypeScript has not been fetched before")
    TOOLS.mkdir(parents=True, exist_ok=True)
    named = [f"{name}@{version}" for name, version in wanted.items()]
    fetched = subprocess.run([npm, "install", "--no-save", "--no-fund", "--no-audit", "--prefix", str(TOOLS), *named],
                             capture_output=True, text=True, timeout=100)  # fmt: skip
    if fetched.returncode != 0:
        pytest.skip(f"npm cannot fetch {named}: {fetched.stderr.splitlines()[-1:]}")
    return folder


def _version(package: Path) -> str | None:
    file = package / "package.json"
    return json.loads(file.read_text())["version"] if file.exists() else None


def test_types(packages: Path, tmp_path: Path) -> None:
    shutil.copytree(FOLDER, tmp_path / "page", ignore=shutil.ignore_patterns("vendor"))
    shutil.copytree(packages / "lit-html", tmp_path / "page" / "vendor" / "lit-html")
    (tmp_path / "tsconfig.json").write_text(json.dumps({"compilerOptions": OPTIONS, "include": ["page/js"]}))
    tsc = packages / ".bin" / "tsc"
    checked = subprocess.run([tsc, "-p", tmp_path], cwd=tmp_path, capture_output=True, text=True, timeout=100)
    assert (checked.returncode, checked.stdout) == (0, "")
