"""Clients as others generate them from the committed openapi.json, against the whole service."""

from __future__ import annotations

import io
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from app.api.openapi.__main__ import FILE
from tests.limits import HANG_S
from tests.packages import install_python
from tests.sdk.node_packages import installed

PROGRAMS = Path(__file__).with_name("programs")
#: The generator knows no media types but these; its own setting says so to it.
OVERRIDES = dict.fromkeys(("image/png", "image/jpeg", "image/webp", "video/mp4"), "application/octet-stream")


def run(*command: str, path: tuple[Path, ...] = (), cwd: Path | None = None) -> str:
    tools = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])  # a generator formats by ruff
    environment = os.environ | {"PATH": tools, "PYTHONPATH": os.pathsep.join(map(str, path))}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, cwd=cwd, timeout=HANG_S)
    assert done.returncode == 0, (done.stdout + done.stderr)[-4000:]
    return done.stdout


def check(said: str) -> None:
    seen: dict[str, Any] = json.loads(said)
    picture = bytes.fromhex(seen.pop("picture"))
    assert Image.open(io.BytesIO(picture)).size == (64, 64)
    assert seen == {
        "status": "completed",
        "scale": 7.0,
        "part": [206, picture[:4].hex()],
        "refused": [400, "model_not_found", "model"],
        "video": ["queued", "1.0625"],
    }


def test_openapi_python_client(service: str, tmp_path: Path) -> None:
    requirements = ("openapi-python-client==0.29.1", "typer==0.27.3", "ruamel.yaml==0.18.17", "attrs==26.1.0")
    generator = install_python("openapi-python-client", *requirements)
    (tmp_path / "config.json").write_text(json.dumps({"content_type_overrides": OVERRIDES}))
    said = run(
        sys.executable, "-m", "openapi_python_client", "generate", "--path", str(FILE), "--meta", "none",
        "--config", str(tmp_path / "config.json"), "--output-path", str(tmp_path / "nag_client"), "--fail-on-warning",
        path=(generator,),
    )  # fmt: skip
    assert "WARNING" not in said
    check(run(sys.executable, str(PROGRAMS / "openapi_python_client.py"), service, path=(tmp_path, generator)))


def test_openapi_generator(service: str, tmp_path: Path) -> None:
    if shutil.which("java") is None:
        pytest.skip("no java on the PATH")
    jar = install_python("openapi-generator", "openapi-generator-cli==7.26.0") / "openapi_generator_cli"
    run(
        "java", "-jar", str(jar / "openapi-generator.jar"), "generate", "-g", "python", "-i", str(FILE),
        "-o", str(tmp_path), "--package-name", "nag_client", "--global-property", "apiDocs=false,modelDocs=false",
    )  # fmt: skip
    check(run(sys.executable, str(PROGRAMS / "openapi_generator.py"), service, path=(tmp_path,)))


def test_openapi_typescript(service: str) -> None:
    folder = installed()
    bin_folder = folder / "node_modules" / ".bin"
    run(str(bin_folder / "openapi-typescript"), str(FILE), "-o", "api.ts", cwd=folder)
    options = ["--strict", "--target", "es2022", "--module", "nodenext", "--skipLibCheck", "--types", "node"]
    run(str(bin_folder / "tsc"), *options, "typed.ts", cwd=folder)
    check(run("node", "typed.js", service, cwd=folder))
