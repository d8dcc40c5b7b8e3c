"""The image: who runs in it, what is in it, and that nothing else is."""

from __future__ import annotations

import re
import subprocess
import tomllib
from pathlib import Path

import pytest

from app.settings import Settings
from tests.docker import context, dockerfile
from tests.docker.tools import ROOT, needed

TARGETS = ("cpu", "cuda")


@pytest.fixture(scope="module")
def stages() -> dict[str, dockerfile.Stage]:
    return dockerfile.load()


def test_hadolint_finds_nothing() -> None:
    said = subprocess.run([needed("hadolint"), "Dockerfile"], cwd=ROOT, capture_output=True, text=True)
    assert (said.returncode, said.stdout) == (0, "")


@pytest.mark.parametrize("target", TARGETS)
def test_a_target_runs_as_a_fixed_user_who_is_not_root(target: str, stages: dict[str, dockerfile.Stage]) -> None:
    assert re.fullmatch(r"[1-9]\d{4}:[1-9]\d{4}", stages[target].user)


@pytest.mark.parametrize("target", TARGETS)
def test_what_is_written_lies_in_a_volume_or_in_tmp(target: str, stages: dict[str, dockerfile.Stage]) -> None:
    stage = stages[target]
    folders = [stage.environment[name] for name in ("HF_HOME", "NAG_DATA_DIR", "HOME", "TRITON_CACHE_DIR")]
    writable = [*stage.volumes, "/tmp", stage.folder]
    assert [each for each in folders if not any(f"{each}/".startswith(f"{top}/") for top in writable)] == []
    assert stage.environment["PYTHONDONTWRITEBYTECODE"] == "1"


@pytest.mark.parametrize("target", TARGETS)
def test_its_settings_are_settings(target: str, stages: dict[str, dockerfile.Stage]) -> None:
    named = {name.removeprefix("NAG_").lower() for name in stages[target].environment if name.startswith("NAG_")}
    assert named <= set(Settings.model_fields)


def test_the_targets_differ_in_their_dependencies_alone(stages: dict[str, dockerfile.Stage]) -> None:
    for target in TARGETS:
        assert [copy.stage for copy in stages[target].copies] == [f"dependencies-{target}", "service"]
        assert stages[target].command == ("api",)


def test_the_base_is_one_sequence_of_bytes(stages: dict[str, dockerfile.Stage]) -> None:
    images = {dockerfile.base(stages, name) for name in stages}
    assert len(images) == 1
    python = re.fullmatch(r"python:(\d+\.\d+)\.(\d+)-slim-\w+@sha256:[0-9a-f]{64}", images.pop())
    assert python is not None
    declared = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["requires-python"].removeprefix(">=")
    minor, _, patch = declared.rpartition(".")
    assert python[1] == minor
    assert int(python[2]) >= int(patch)


def test_every_installation_is_held_to_the_tested_versions(stages: dict[str, dockerfile.Stage]) -> None:
    for name, stage in stages.items():
        if any("pip" in run for run in stage.runs):
            assert stage.environment["PIP_CONSTRAINT"] == "/src/constraints.txt", name
            (first, *_) = stage.copies
            assert "constraints.txt" in first.sources, name
    pins = (ROOT / "constraints.txt").read_text()
    assert re.search(r"^setuptools==", pins, re.MULTILINE)  # what the wheel is built with


def test_what_is_copied_is_in_the_context_and_nothing_else_is(stages: dict[str, dockerfile.Stage]) -> None:
    seen = set(context.files())
    copied = {
        source for stage in stages.values() for copy in stage.copies if copy.stage is None for source in copy.sources
    }
    assert {path for path in seen if path.split("/")[0] not in copied} == set()
    assert {source for source in copied if not any(f"{path}/".startswith(f"{source}/") for path in seen)} == set()
    assert "app/builtin/shapes-flux/model_index.json" in seen


def test_nothing_hidden_nor_made_on_the_way_is_in_the_context(tmp_path: Path) -> None:
    (tmp_path / ".dockerignore").write_text((ROOT / ".dockerignore").read_text())
    for path in (
        "app/a.py",
        "app/.env",
        "app/__pycache__/a.pyc",
        "nag/x/.netrc",
        "docker/secrets/a",
        ".git/config",
        "out.png",
    ):
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).touch()
    assert context.files(tmp_path) == ["app/a.py"]


def test_no_secret_is_built_in() -> None:
    named = re.findall(
        r"^\s*(?:ARG|ENV)?\s*(\w*(?:PASSWORD|TOKEN|SECRET|API_KEY)\w*)=", dockerfile.FILE.read_text(), re.MULTILINE
    )
    assert named == []
