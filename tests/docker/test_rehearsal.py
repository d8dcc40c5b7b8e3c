"""Every container of docker-compose.yml, started as an engine would start it."""

from __future__ import annotations

import os
import re
import subprocess
import sys

import pytest

from tests.docker import compose
from tests.docker.rehearsal.__main__ import CANNOT
from tests.docker.tools import ROOT


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_the_containers_start_serve_and_end() -> None:
    said = subprocess.run([sys.executable, "-m", "tests.docker.rehearsal"], cwd=ROOT, capture_output=True, text=True)
    if said.returncode == CANNOT:
        pytest.skip(said.stdout.strip())
    assert said.returncode == 0, said.stdout + said.stderr
    skipped = set(re.findall(r"^skipped ([\w-]+):", said.stdout, re.MULTILINE))
    assert skipped <= {"worker-gpu", "worker-gpus", "prometheus", "grafana"}
    for name in set(compose.load()["services"]) - skipped:
        for step in ("starts and is healthy", "no rights", "ends"):
            assert f"ok      {name}: {step}" in said.stdout
    for step in ("a picture over HTTP", "worker: ready as the chart asks", "refusals", "metrics"):
        assert f"ok      {step}" in said.stdout


def test_without_a_package_index_it_says_why_it_cannot() -> None:
    nowhere = {"PIP_CONFIG_FILE": os.devnull, "PIP_NO_INDEX": "1"}
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PIP_")} | nowhere
    command = [sys.executable, "-m", "tests.docker.rehearsal"]
    said = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert said.returncode == CANNOT, said.stdout + said.stderr
    assert "cannot rehearse here: " in said.stdout
