"""Every hub entry from `nag-server up` to an image or video over HTTP: from the hub, then from its cache alone."""

from __future__ import annotations

import base64
import os
import re
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from PIL import Image

from app.catalog import Catalog, Model, field_of
from app.jobs import InputRole
from app.settings import Settings
from app.worker.outputs.video import encode_mp4
from tests.hub.installed import ROOT, create_environment
from tests.hub.repositories import REPOSITORIES, small_size, write_repositories
from tests.hub.server import TOKEN, Hub, serve_hub
from tests.pictures import png

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]  # runs every entry of the catalog
WAIT_S = 120
IMAGE = f"data:image/png;base64,{base64.b64encode(png(Image.new('RGB', (64, 64), 'green'))).decode()}"
WARM_S = 400
ENTRIES = {name: model for name, model in Catalog.known(Settings()).items() if not Path(model.repository).is_dir()}


@pytest.fixture(scope="module")
def python(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return create_environment(tmp_path_factory.mktemp("installed") / "venv")


@pytest.fixture(scope="module")
def hub(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Hub]:
    with serve_hub(write_repositories(tmp_path_factory.mktemp("hub"))) as hub:
        yield hub


def write_catalog(path: Path) -> Path:
    """Every entry as it is, but for sizes that its small pipeline makes fast."""
    lines = []
    for name, model in ENTRIES.items():
        lines += [f"[models.{name}]", f'extends = "{name}"']
        for field, value in zip(("width", "height", "num_frames"), small_size(model), strict=True):
            size = getattr(model, field)
            if size is not None:
                numbers = {"default": value, "min": value, "max": size.max, "multiple": size.multiple}
                numbers |= {} if size.offset is None else {"offset": size.offset}
                lines.append(f"{field} = {{ {', '.join(f'{key} = {number}' for key, number in numbers.items())} }}")
    path.write_text("\n".join(lines))
    return path


@contextmanager
def service(python: Path, folder: Path, **environment: str) -> Iterator[httpx.Client]:
    """A client of a running `nag-server up` with its data, log and Hugging Face cache in `folder`."""
    variables = {name: value for name, value in os.environ.items() if not name.startswith(("NAG_", "HF_"))}
    variables |= {
        "PYTHONPATH": str(ROOT), "NAG_DATA_DIR": str(folder / "data"), "NAG_PORT": "0", "NAG_DEVICE": "cpu",
        "NAG_BATCH_BUDGET": "fixed", "NAG_CATALOG": str(write_catalog(folder / "sizes.toml")),
        "NAG_WAIT_MAX_S": str(WAIT_S), "HF_HOME": str(folder / "huggingface"), "HF_HUB_DISABLE_TELEMETRY": "1",
        **environment,
    }  # fmt: skip
    log = folder / "service.log"
    with log.open("w") as out:
        process = subprocess.Popen(
            [python, "-m", "app.cli", "up"], env=variables, cwd=folder, stdout=out, stderr=subprocess.STDOUT
        )
    try:
        deadline = time.monotonic() + WAIT_S
        while (url := re.search(r"nag-server: (http\S+)", log.read_text())) is None:
            assert process.poll() is None, log.read_text()
            assert time.monotonic() < deadline, log.read_text()
            time.sleep(0.1)
        with httpx.Client(base_url=url[1], trust_env=False, timeout=WAIT_S + 10) as client:
            yield client
    finally:
        process.send_signal(signal.SIGINT)
        process.wait(60)


def files_of(model: Model) -> list[dict[str, Any]]:
    """The fields of requests by text alone, if the model can, and with all frames, references or a video it takes."""
    files: dict[str, Any] = {}
    needs_files = False
    for role in model.inputs.roles:
        limits = model.inputs.limits(role)
        if limits is None or role in (InputRole.IMAGE, InputRole.MASK):
            continue
        needs_files |= limits.required
        file = film(model) if role is InputRole.VIDEO else IMAGE
        files[field_of(role)] = [file] * limits.max if role is InputRole.REFERENCE else file
    return [files] if needs_files or not files else [{}, files]


def film(model: Model) -> str:
    """A data URL of a video as long as those of the entry's small pipeline."""
    width, height, count = small_size(model)
    with encode_mp4(np.full((count, height, width, 3), 99, np.uint8), 8) as file:
        return f"data:video/mp4;base64,{base64.b64encode(file.read()).decode()}"


def generate(client: httpx.Client, model: Model, files: dict[str, Any]) -> dict[str, Any]:
    """The job of one image or video in as few steps as the entry allows, its negative prompt guided by NAG."""
    body = {
        "model": model.id, "prompt": "a red circle", "negative_prompt": "a blue square", "seed": 1,
        "num_inference_steps": model.num_inference_steps.min, "guidance_scale": 1.0, **files,
    }  # fmt: skip
    answer = client.post("/v1/jobs", json=body, headers={"prefer": f"wait={WAIT_S}"})
    job: dict[str, Any] = answer.json()
    return job


def states(client: httpx.Client) -> dict[str, str]:
    """The state of each model. Empty as long as no worker is there."""
    answer = client.get("/v1/models").json()
    return {model["id"]: model["state"] for model in answer["data"]}


def check(client: httpx.Client, model: Model) -> None:
    for files in files_of(model):
        job = generate(client, model, files)
        assert job.get("status") == "completed", (model.id, list(files), job)
        assert job["nag"]["applied"], (model.id, list(files))
        content = client.get(f"/v1/jobs/{job['id']}/result").content
        assert content.startswith(b"\x89PNG") if model.kind == "image" else content[4:8] == b"ftyp", model.id


def test_every_repository_is_an_entrys() -> None:
    assert set(REPOSITORIES) == {source.repository for model in ENTRIES.values() for source in model.sources.values()}


def test_every_entry_runs_from_the_hub_and_then_from_its_cache(python: Path, hub: Hub, tmp_path: Path) -> None:
    models = {"NAG_MODELS": ",".join(ENTRIES), "NAG_WARM": "none"}
    with service(python, tmp_path, HF_ENDPOINT=hub.url, HF_TOKEN=TOKEN, **models) as client:
        for model in ENTRIES.values():
            check(client, model)
    unused = [f"{name}/{file}" for name, file in hub.downloads if file in REPOSITORIES[name].others or ".bin" in file]
    assert unused == []
    offline = {"HF_ENDPOINT": "http://127.0.0.1:9", "HF_HUB_OFFLINE": "1"}
    with service(python, tmp_path, **offline, NAG_MODELS=models["NAG_MODELS"]) as client:
        deadline = time.monotonic() + WARM_S
        while set((now := states(client)).values()) != {"warm"}:  # nobody asked
            assert "failed" not in now.values(), now
            assert time.monotonic() < deadline, now
            time.sleep(0.5)
        for model in ENTRIES.values():
            check(client, model)
