"""`python -m tests.docker.rehearsal`: one line a step; exit code 0, 1 where one failed, 3 where this machine cannot."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import tomllib
from pathlib import Path

from tests.docker.rehearsal import image
from tests.docker.rehearsal.container import RehearsalError
from tests.docker.rehearsal.play import play
from tests.docker.tools import ROOT

CANNOT = 3


def cannot() -> str | None:
    """Why this machine cannot rehearse."""
    if not sys.platform.startswith("linux") or os.geteuid():
        return "needs Linux and root: it lays file systems and becomes other users"
    if missing := [each for each in ("unshare", "mount") if shutil.which(each) is None]:
        return f"needs {', '.join(missing)}"
    tried = subprocess.run(["unshare", "--mount", "--net", "--pid", "--fork", "true"], capture_output=True, text=True)
    return f"needs namespaces: {tried.stderr.strip()}" if tried.returncode else None


def fetch_error(folder: Path) -> str | None:
    """Why pip cannot fetch the packages that build the image's wheel."""
    requirements = tomllib.loads((ROOT / "pyproject.toml").read_text())["build-system"]["requires"]
    options = ["--quiet", "--disable-pip-version-check", "--no-deps", "--retries=0", "--timeout=60"]
    pip = [sys.executable, "-m", "pip", "download", *options, "--dest", str(folder), *requirements]
    done = subprocess.run(pip, capture_output=True, text=True)
    return done.stderr.strip().splitlines()[-1] if done.returncode else None


def main() -> int:
    if len(sys.argv) > 1:
        return play(Path(sys.argv[1]))
    with tempfile.TemporaryDirectory(prefix="nag-rehearsal-") as folder:
        if reason := cannot() or fetch_error(Path(folder, "packages")):
            print(f"cannot rehearse here: {reason}")
            return CANNOT
        # Containers' users go through it to their files.
        Path(folder).chmod(0o711)
        try:
            built = image.build(Path(folder))
        except RehearsalError as error:
            print(f"FAILED  image: {error}")
            return 1
        print(
            f"ok      image: built by the Dockerfile's instructions, {sum(1 for _ in built.rglob('*'))} files",
            flush=True,
        )
        # From here on without the machine's network; what is started dies with the first process of the namespace.
        return subprocess.run(
            ["unshare", "--mount", "--net", "--pid", "--fork", "--kill-child", "--mount-proc",
             sys.executable, "-m", "tests.docker.rehearsal", folder],
        ).returncode  # fmt: skip


if __name__ == "__main__":
    sys.exit(main())
