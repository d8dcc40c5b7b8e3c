"""The loopback hub, asked by huggingface_hub itself, in a process of its own: HF_ENDPOINT is read at import."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from tests.hub.server import TOKEN, Hub, Repository, serve_hub

COMMITS = ("a" * 40, "b" * 40)

CLIENT = """
import json, sys
from huggingface_hub import HfApi, hf_hub_download, snapshot_download
from huggingface_hub.errors import HfHubHTTPError
out = {}
def attempt(name, call):
    try:
        out[name] = call()
    except HfHubHTTPError as exc:
        out[name] = type(exc).__name__
api = HfApi()
attempt("main", lambda: api.model_info("owner/open").sha)
attempt("pinned", lambda: api.model_info("owner/open", revision="b" * 40).sha)
attempt("lost revision", lambda: api.model_info("owner/open", revision="c" * 40).sha)
attempt("lost repository", lambda: api.model_info("owner/lost").sha)
attempt("lost file", lambda: hf_hub_download("owner/open", "lost.json"))
attempt("tree", lambda: sorted(f.path for f in api.list_repo_tree("owner/open", recursive=True)))
attempt("file", lambda: open(hf_hub_download("owner/open", "a.json")).read())
attempt("snapshot", lambda: snapshot_download("owner/open", revision="b" * 40, ignore_patterns=["*.json"]))
attempt("gated info", lambda: api.model_info("owner/gated").gated)
attempt("gated", lambda: open(hf_hub_download("owner/gated", "a.json")).read())
print(json.dumps(out))
"""


def ask(hub: Hub, home: Path, **environment: str) -> dict[str, object]:
    variables = {"HF_ENDPOINT": hub.url, "HF_HOME": str(home), "HF_HUB_DISABLE_XET": "1", **environment}
    done = subprocess.run([sys.executable, "-c", CLIENT], env=os.environ | variables, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.fixture
def hub(tmp_path: Path) -> Iterator[Hub]:
    folder = tmp_path / "repository"
    (folder / "vae").mkdir(parents=True)
    (folder / "a.json").write_text("{}")
    (folder / "vae" / "weights.safetensors").write_bytes(bytes(40_000))
    repositories = {name: Repository(folder, COMMITS, name == "owner/gated") for name in ("owner/open", "owner/gated")}
    with serve_hub(repositories) as hub:
        yield hub


def test_huggingface_hub_finds_what_the_hub_has(hub: Hub, tmp_path: Path) -> None:
    answers = ask(hub, tmp_path / "home")
    snapshot = Path(str(answers.pop("snapshot")))
    assert (snapshot / "vae" / "weights.safetensors").stat().st_size == 40_000
    assert not (snapshot / "a.json").exists()
    assert answers == {
        "main": COMMITS[0],
        "pinned": COMMITS[1],
        "lost revision": "RevisionNotFoundError",
        "lost repository": "RepositoryNotFoundError",
        "lost file": "RemoteEntryNotFoundError",
        "tree": ["a.json", "vae/weights.safetensors"],
        "file": "{}",
        "gated info": "auto",
        "gated": "GatedRepoError",
    }
    assert hub.downloads == [("owner/open", "a.json"), ("owner/open", "vae/weights.safetensors")]


def test_the_token_opens_a_gated_repository(hub: Hub, tmp_path: Path) -> None:
    assert ask(hub, tmp_path / "home", HF_TOKEN="hf_" + "x" * 34)["gated"] == "GatedRepoError"
    assert ask(hub, tmp_path / "home", HF_TOKEN=TOKEN)["gated"] == "{}"


def test_a_download_resumes_with_a_range(hub: Hub) -> None:
    url = f"{hub.url}/owner/open/resolve/main/vae/weights.safetensors"
    with httpx.Client(trust_env=False) as http:
        answer = http.get(url, headers={"range": "bytes=39990-"})
        assert (answer.status_code, len(answer.content)) == (206, 10)
        assert answer.headers["content-range"] == "bytes 39990-39999/40000"
        head = http.head(url)
    assert (head.headers["content-length"], head.headers["x-repo-commit"]) == ("40000", COMMITS[0])
