"""Downloads from a hub on loopback, in a process of their own: HF_ENDPOINT is read when huggingface_hub is imported."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import torch

from app.catalog import Catalog
from app.loading import pipeline as pipelines
from app.settings import Settings
from tests.hub.repositories import REPOSITORIES, write_repositories
from tests.hub.server import TOKEN, Hub, Repository, serve_hub
from tests.hub.test_entries import check, generate, service
from tests.hub.weights import peft, save_lora

pytestmark = pytest.mark.slow  # starts processes that download from a hub

KNOWN = Catalog.known(Settings())
NAME = "sdxl-lightning"  # a variant, and another denoiser's weights
GATED = "flux-schnell"
#: Runs commands one after the other, each a JSON line of its arguments and variables.
SHELL = """
import contextlib, io, json, os, sys
from huggingface_hub import constants
from app.cli import main
for line in sys.stdin:
    arguments, variables = json.loads(line)
    os.environ.update(variables)
    constants.HF_HUB_OFFLINE = "HF_HUB_OFFLINE" in variables
    constants.HF_HUB_CACHE = variables["HF_HUB_CACHE"]
    constants.HF_TOKEN_PATH = variables.get("HF_TOKEN_PATH", "/nowhere")
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        status = main(arguments)
    for name in variables:
        del os.environ[name]
    print(json.dumps([status, out.getvalue(), err.getvalue()]), flush=True)
"""
Run = Callable[..., tuple[int, str, str]]


@pytest.fixture(scope="module")
def hub(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Hub]:
    """The repositories of two entries, one of them gated."""
    names = {source.repository for name in (NAME, GATED) for source in KNOWN[name].sources.values()}
    with serve_hub(write_repositories(tmp_path_factory.mktemp("hub"), names)) as hub:
        yield hub


@pytest.fixture(scope="module")
def shell(hub: Hub, tmp_path_factory: pytest.TempPathFactory) -> Iterator[subprocess.Popen[str]]:
    variables = {"HF_ENDPOINT": hub.url, "HF_HOME": str(tmp_path_factory.mktemp("home")), "HF_HUB_DISABLE_XET": "1"}
    command = [sys.executable, "-W", "ignore", "-c", SHELL]
    environment = os.environ | variables | {"COLUMNS": "200"}
    with subprocess.Popen(
        command, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    ) as process:
        yield process
        assert process.stdin is not None
        process.stdin.close()


@pytest.fixture
def run(shell: subprocess.Popen[str], tmp_path: Path) -> Run:
    """`run("models", "pull", HF_TOKEN="…")`: status, output and errors of a command with a cache of this test."""

    def run(*arguments: str, **variables: str) -> tuple[int, str, str]:
        assert shell.stdin is not None
        assert shell.stdout is not None
        line = json.dumps([arguments, {"HF_HUB_CACHE": str(tmp_path / "hub"), **variables}])
        shell.stdin.write(f"{line}\n")
        shell.stdin.flush()
        status, output, errors = json.loads(shell.stdout.readline())
        return status, output, errors

    return run


def test_pull_fetches_what_is_loaded_and_nothing_else(run: Run, hub: Hub) -> None:
    _, output, _ = run("models", "check", NAME, "--cache")
    assert f"\n{NAME}: to download: " in output
    hub.downloads.clear()
    assert run("models", "pull", NAME)[:2] == (0, "")
    files = [file for _, file in hub.downloads]
    assert len(files) == len(set(files))
    assert [file for name, file in hub.downloads if file in REPOSITORIES[name].others] == []
    assert {file for file in files if file.startswith(("unet/", "vae/"))} == {
        "unet/config.json", "vae/config.json"
    }  # fmt: skip
    assert {"sdxl_lightning_4step_unet.safetensors", "text_encoder/model.fp16.safetensors"} < set(files)
    assert {file for name, file in hub.downloads if "vae" in name} == {
        "config.json", "diffusion_pytorch_model.safetensors"
    }  # fmt: skip
    hub.downloads.clear()
    status, output, _ = run("models", "check", NAME, "--cache", HF_HUB_OFFLINE="1")
    assert (status, "here" in output, "to download" in output) == (0, True, False), output
    assert run("models", "pull", NAME)[0] == 0
    assert hub.downloads == []  # all of it is here


def test_a_file_that_was_lost_is_missed_and_fetched_again(run: Run, hub: Hub, tmp_path: Path) -> None:
    assert run("models", "pull", NAME)[0] == 0
    (weights,) = tmp_path.glob("hub/*/snapshots/*/text_encoder/*.safetensors")
    weights.resolve().unlink()
    _, output, _ = run("models", "check", NAME, "--cache", HF_HUB_OFFLINE="1")
    assert f"\n{NAME}: to download: 1 files, 0.0 GB" in output
    status, _, errors = run("models", "pull", NAME, HF_HUB_OFFLINE="1")
    assert status == 1
    assert f"nag-server: {NAME}: not on this machine, and HF_HUB_OFFLINE is set" in errors
    hub.downloads.clear()
    assert run("models", "pull", NAME)[0] == 0
    assert [file for _, file in hub.downloads] == ["text_encoder/model.fp16.safetensors"]


def test_a_gated_repository_says_what_to_do_and_opens_to_a_token(run: Run, hub: Hub, tmp_path: Path) -> None:
    repository = KNOWN[GATED].repository
    for token in ("", "hf_" + "x" * 34):
        status, _, errors = run("models", "pull", GATED, HF_TOKEN=token)
        assert status == 1
        assert (
            f"nag-server: {GATED}: {repository} asks for a login: accept its terms at {hub.url}/{repository} and "
            "give the worker that account's token in HF_TOKEN" in errors
        )
    secret = tmp_path / "secret"
    secret.write_text(f"{TOKEN}\n")
    assert run("models", "pull", GATED, HF_TOKEN_PATH=str(secret))[0] == 0
    shutil.rmtree(tmp_path / "hub")
    assert run("models", "pull", GATED, HF_TOKEN=TOKEN)[0] == 0


LORA, COMMITS = "me/watercolor", ("1" * 40, "2" * 40)
LORAS = f"""
[loras.watercolor]
base = "shapes-flux"
repository = "{LORA}"
weight_name = "styles/watercolor.safetensors"
revision = "{COMMITS[1]}"

[loras.oil]
base = "shapes-flux"
repository = "{LORA}"
weight_name = "oil.safetensors"

[loras.lost]
base = "shapes-flux"
repository = "{LORA}"
weight_name = "oil.safetensors"
revision = "{"3" * 40}"
"""


@pytest.fixture
def with_loras(hub: Hub, tmp_path: Path) -> dict[str, str]:
    """The environment of a service that knows three LoRAs of one repository, the third of a revision that it lacks."""
    folder = tmp_path / "loras"
    transformer = pipelines.load(KNOWN["shapes-flux"], torch.device("cpu")).transformer
    for name in ("styles/watercolor", "oil"):
        save_lora(transformer, folder / f"{name}.safetensors", peft("transformer"))
    (folder / "README.md").write_text("two styles")
    hub.repositories[LORA] = Repository(folder, COMMITS)
    (tmp_path / "loras.toml").write_text(LORAS)
    hub.downloads.clear()
    return {"NAG_CATALOG": str(tmp_path / "loras.toml"), "NAG_MODELS": "shapes-flux", "HF_ENDPOINT": hub.url}


def test_a_lora_of_a_request_is_fetched_once_and_used_offline(
    with_loras: dict[str, str], hub: Hub, tmp_path: Path
) -> None:
    def job(client: httpx.Client, *loras: str) -> tuple[dict[str, Any], bytes]:
        body = {"prompt": "a shape", "seed": 1, "loras": [{"id": name} for name in loras]}
        made = client.post("/v1/jobs", json=body, headers={"prefer": "wait=120"}).json()
        return made, client.get(f"/v1/jobs/{made['id']}/result").content

    with service(Path(sys.executable), tmp_path, **with_loras) as client:
        _, plain = job(client)
        assert hub.downloads == []
        done, image = job(client, "watercolor")
        assert (done["status"], done["loras"]) == ("completed", [{"id": "watercolor", "scale": 1.0}])
        assert image != plain
        assert hub.downloads == [(LORA, "styles/watercolor.safetensors")]
        assert any(f"/resolve/{COMMITS[1]}/" in path for _, path in hub.requests)
        failed, _ = job(client, "lost")
        assert failed["error"]["code"] == "lora_unavailable"
        assert "loras: lost: its file cannot be had" in failed["error"]["message"]
    (missing,) = re.findall(r" lora_missing lora=lost .*", (tmp_path / "service.log").read_text())
    assert COMMITS[1] not in missing
    assert "3" * 40 in missing
    hub.requests.clear()
    with service(Path(sys.executable), tmp_path, **with_loras, HF_HUB_OFFLINE="1") as client:
        assert job(client, "watercolor")[1] == image
        failed, _ = job(client, "oil")
        assert failed["error"]["code"] == "lora_unavailable"
        assert hub.requests == []
    assert 'lora_missing lora=oil message="not on this machine' in (tmp_path / "service.log").read_text()


def test_a_lora_is_pulled_by_its_name(with_loras: dict[str, str], hub: Hub, run: Run) -> None:
    catalog = {"NAG_CATALOG": with_loras["NAG_CATALOG"], "NAG_MODELS": "shapes-flux"}
    _, output, _ = run("models", "check", "oil", "--cache", **catalog)
    assert "\noil: to download: " in output
    assert run("models", "pull", "oil", **catalog)[:2] == (0, "")
    assert hub.downloads == [(LORA, "oil.safetensors")]
    offline = {**catalog, "HF_HUB_OFFLINE": "1"}
    status, output, _ = run("models", "check", "oil", "--cache", **offline)
    assert (status, "here" in output, "to download" in output) == (0, True, False), output
    assert run("models", "pull", "oil", **offline)[0] == 0
    status, _, errors = run("models", "pull", "lost", **catalog)
    assert (status, f"nag-server: lost: {LORA}: " in errors) == (1, True), errors


def test_a_model_downloads_while_another_serves_and_both_are_warm_after_a_restart(hub: Hub, tmp_path: Path) -> None:
    python, embedded = Path(sys.executable), KNOWN["shapes-flux"]

    def state(client: httpx.Client, model: str) -> dict[str, Any]:
        answer: dict[str, Any] = client.get(f"/v1/models/{model}").json()
        return answer

    variables = {"HF_ENDPOINT": hub.url, "NAG_MODELS": f"shapes-flux,{NAME},{GATED}", "NAG_BATCH_BUDGET": "measured"}
    one_of_them = {"NAG_MODEL_MEMORY_BYTES": "26000000"}
    hub.bytes_per_s = 5_000  # some minutes, were it left so
    with service(python, tmp_path, **variables, **one_of_them) as client:
        while state(client, embedded.id)["state"] != "warm":
            time.sleep(0.1)
        assert state(client, NAME)["state"] == "cold"
        sent = {"model": NAME, "prompt": "a red circle", "negative_prompt": "a blue square"}
        job = client.post("/v1/jobs", json=sent).json()
        while (seen := state(client, NAME))["progress"] is None:
            time.sleep(0.1)
        assert seen["state"] == "downloading"
        assert 0 <= seen["progress"]["done_bytes"] < seen["progress"]["total_bytes"]
        check(client, embedded)  # nobody waits for the download
        assert client.get(f"/v1/jobs/{job['id']}").json()["status"] == "queued"
        hub.bytes_per_s = None
        while (status := client.get(f"/v1/jobs/{job['id']}").json()["status"]) in ("queued", "in_progress"):
            time.sleep(0.1)
        assert status == "completed"
        failed = generate(client, KNOWN[GATED], {})
        assert failed["error"]["code"] == "model_unavailable"
        assert f"{KNOWN[GATED].repository} asks for a login: accept its terms at " in failed["error"]["message"]
        assert state(client, GATED)["state"] == "failed"
        assert "asks for a login" in state(client, GATED)["error"]
        for name in (embedded.id, NAME):
            check(client, KNOWN[name])
    log = (tmp_path / "service.log").read_text()
    # Of two that do not fit together, each is loaded once a turn: room is made first.
    assert re.findall(r" model_loaded model=(\S+)", log) == [embedded.id, NAME, embedded.id, NAME]
    assert "out_of_memory" not in log
    assert log.count(f"model_warm model={NAME}") == 1  # it was measured after its first job

    with service(python, tmp_path, **variables, HF_HUB_OFFLINE="1") as client:
        while state(client, NAME)["state"] != "warm":
            time.sleep(0.1)
        check(client, KNOWN[NAME])
    assert f"model_left_cold model={GATED} " in (tmp_path / "service.log").read_text()
