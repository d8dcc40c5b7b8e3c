"""The library as a distribution of its own: built from its folder, installed without the service, and used."""

from __future__ import annotations

import importlib.metadata
import os
import shutil
import subprocess
import sys
import tomllib
import zipfile
from email.parser import BytesParser
from pathlib import Path
from typing import Any

import pytest
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet

import nag
from tests.hub.installed import ROOT, create_empty_environment, link_dependencies

PROJECT = ROOT / "nag" / "pyproject.toml"
#: Guides one call of a small Flux, in an environment that has neither the service nor transformers.
PROGRAM = """
import importlib.metadata
import importlib.util
from pathlib import Path
from typing import Any

import torch
from diffusers import FluxTransformer2DModel

import nag

assert importlib.util.find_spec("app") is None
assert importlib.util.find_spec("transformers") is None
assert importlib.metadata.version("nag-diffusers") == nag.__version__
assert (Path(nag.__file__).parent / "py.typed").exists()
torch.manual_seed(0)
denoiser = FluxTransformer2DModel(
    in_channels=16, num_layers=1, num_single_layers=1, attention_head_dim=16, num_attention_heads=2,
    joint_attention_dim=32, pooled_projection_dim=32, axes_dims_rope=(4, 4, 8),
).eval()
call = {
    "hidden_states": torch.randn(1, 16, 16), "timestep": torch.tensor([0.5]), "pooled_projections": torch.randn(1, 32),
    "encoder_hidden_states": torch.randn(1, 7, 32), "txt_ids": torch.zeros(7, 3), "img_ids": torch.zeros(16, 3),
}
negative = nag.NegativeEmbeds(torch.randn(1, 7, 32))
with torch.no_grad(), nag.attach(denoiser) as attached:
    plain = denoiser(**call).sample
    with attached.rows([nag.RowGuidance(negative, 5.0, 2.5, 0.25)]):
        assert not torch.equal(denoiser(**call).sample, plain)
print(nag.__file__)
"""


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    source = folder / "nag"
    shutil.copytree(PROJECT.parent, source, ignore=shutil.ignore_patterns("__pycache__", "*.egg-info", ".build"))
    options = ["--no-deps", "--no-build-isolation", "--no-index", "--disable-pip-version-check", "--quiet"]
    subprocess.run(
        [sys.executable, "-m", "pip", "wheel", *options, "--wheel-dir", str(folder), str(source)],
        check=True,
        env=os.environ | {"PIP_NO_INPUT": "1"},
    )
    (built,) = folder.glob("*.whl")
    return built


def test_the_wheel_has_the_whole_library_and_nothing_else(wheel: Path) -> None:
    names = set(zipfile.ZipFile(wheel).namelist())
    modules = {str(path.relative_to(ROOT)) for path in (ROOT / "nag").rglob("*.py") if ".build" not in path.parts}
    assert {name for name in names if ".dist-info/" not in name} == modules | {"nag/py.typed"}
    (metadata,) = (name for name in names if name.endswith("/METADATA"))
    fields = BytesParser().parsebytes(zipfile.ZipFile(wheel).read(metadata))
    assert fields["Version"] == nag.__version__
    assert fields["Requires-Python"] == _project(ROOT / "pyproject.toml")["requires-python"]
    assert [Requirement(line).name for line in fields.get_all("Requires-Dist", [])] == ["torch", "diffusers"]
    assert any(name.endswith("licenses/LICENSE") for name in names)


@pytest.mark.slow
def test_the_library_is_used_without_the_service(wheel: Path, tmp_path: Path) -> None:
    python, packages = create_empty_environment(tmp_path / "venv")
    link_dependencies(packages, PROJECT)
    zipfile.ZipFile(wheel).extractall(packages)
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
    done = subprocess.run(
        [python, "-c", PROGRAM], cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr
    assert Path(done.stdout.strip()).parent == packages / "nag"


def test_the_service_depends_on_the_library_and_has_its_version() -> None:
    service = _project(ROOT / "pyproject.toml")
    assert _project(PROJECT)["name"] in service["dependencies"]
    assert service["version"] == nag.__version__


def _project(path: Path) -> dict[str, Any]:
    project: dict[str, Any] = tomllib.loads(path.read_text())["project"]
    return project


def test_every_pinned_package_takes_the_oldest_python_that_is_declared() -> None:
    declared = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["requires-python"]
    oldest = declared.removeprefix(">=")
    pinned = {Requirement(line).name for line in (ROOT / "constraints.txt").read_text().splitlines() if "==" in line}
    installed = {name for name in pinned if any(importlib.metadata.distributions(name=name))}
    assert len(installed) > 100
    refusing = {
        name: requires
        for name in installed
        if (requires := importlib.metadata.metadata(name)["Requires-Python"])
        and not SpecifierSet(requires).contains(oldest)
    }
    assert not refusing
