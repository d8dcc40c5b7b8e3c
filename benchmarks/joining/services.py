"""Starts a service from any commit of this repository."""

from __future__ import annotations

import re
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx

from app.cli.local_service import running

__all__ = ["ROOT", "checkout", "commit_of", "service", "warm_up_lines"]

ROOT = Path(__file__).resolve().parents[2]
MODELS = ("shapes-flux", "shapes-sd", "shapes-wan")
SETTINGS = {"NAG_DEVICE": "cpu", "NAG_WARM": ",".join(MODELS)}
WARM_S = 400.0
POLL_S = 0.2


@contextmanager
def checkout(commit: str, folder: Path) -> Iterator[Path]:
    """A git worktree of `commit` in `folder`, removed at the end."""
    _git("worktree", "add", "--detach", str(folder), commit)
    try:
        yield folder
    finally:
        _git("worktree", "remove", "--force", str(folder))


def commit_of(folder: Path) -> str:
    """Returns the short hash of a checkout's commit, with `+` if its code differs from it."""
    changed = _git("-C", str(folder), "status", "--porcelain", "--", "app", "nag")
    return _git("-C", str(folder), "rev-parse", "--short", "HEAD").strip() + ("+" if changed else "")


@contextmanager
def service(code: Path, folder: Path, batch_budget: str = "measured") -> Iterator[str]:
    """The URL of a service with one worker that runs the checkout `code`, entered when all its models are warm.

    Its data and log are in `folder`; `batch_budget` is the setting of this name. Raises ClientError, RuntimeError.
    """
    folder.mkdir()
    with running(folder, code=code, settings=SETTINGS | {"NAG_BATCH_BUDGET": batch_budget}) as url:
        with httpx.Client(base_url=url, trust_env=False) as client:
            deadline_s = time.monotonic() + WARM_S
            while cold := _cold(client):
                if time.monotonic() > deadline_s:
                    raise RuntimeError(f"{', '.join(cold)} not warm after {WARM_S:g} s; see {folder / 'service.log'}")
                time.sleep(POLL_S)
        yield url


def warm_up_lines(folder: Path) -> list[str]:
    """Returns what the worker of a service logged of its models' warm-up: the rows it takes and their throughput."""
    return re.findall(r" model_warm (.*)", (folder / "service.log").read_text(errors="replace"))


def _cold(client: httpx.Client) -> list[str]:
    states = {model["id"]: model["state"] for model in client.get("/v1/models").raise_for_status().json()["data"]}
    return [model for model in MODELS if states[model] != "warm"]


def _git(*arguments: str) -> str:
    return subprocess.run(["git", *arguments], cwd=ROOT, check=True, capture_output=True, text=True).stdout  # noqa: S607
