"""A registry that cannot be used skips the tests that need its packages; it never fails them."""

from __future__ import annotations

import os
import shutil
import socket
from collections.abc import Callable
from pathlib import Path

import pytest

from tests import packages

INSTALLERS: dict[str, Callable[[], Path]] = {
    "npm": lambda: packages.install_npm("some", {"dependencies": {"axe-core": "4.14.1"}}),
    "pip": lambda: packages.install_python("some", "attrs==26.1.0"),
}


@pytest.fixture(autouse=True)
def _short(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(packages, "TOOLS", tmp_path / "tools")
    monkeypatch.setattr(packages, "ANSWER_S", 1)


@pytest.mark.slow
@pytest.mark.parametrize("program", INSTALLERS)
@pytest.mark.parametrize("is_open", [True, False], ids=["silent", "closed"])
def test_a_registry_that_does_not_answer(
    program: str, is_open: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if program == "npm" and shutil.which("npm") is None:
        pytest.skip("no npm on the PATH")
    with socket.create_server(("127.0.0.1", 0)) as server:
        url = f"http://127.0.0.1:{server.getsockname()[1]}/"
        settings = {"npm_config_registry": url, "npm_config_cache": str(tmp_path / "cache")}
        settings |= {"PIP_INDEX_URL": url, "PIP_CONFIG_FILE": os.devnull, "PIP_NO_CACHE_DIR": "1"}
        for name, value in settings.items():
            monkeypatch.setenv(name, value)
        for name in ("PIP_EXTRA_INDEX_URL", "PIP_FIND_LINKS"):
            monkeypatch.delenv(name, raising=False)
        if not is_open:
            server.close()
        for _ in range(2):  # the first try leaves nothing that looks installed
            with pytest.raises(pytest.skip.Exception, match="cannot install some"):
                INSTALLERS[program]()


def test_an_installation_that_does_not_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for program in ("node", "npm"):
        (tmp_path / program).write_text("#!/bin/sh\nexec sleep 600\n")
        (tmp_path / program).chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    monkeypatch.setattr(packages, "INSTALL_S", 0.2)
    with pytest.raises(pytest.skip.Exception, match="not done within"):
        INSTALLERS["npm"]()
