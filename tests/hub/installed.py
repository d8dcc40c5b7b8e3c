"""A virtual environment with what `pip install nag-server` brings, and nothing of the development extras."""

from __future__ import annotations

import sys
import tomllib
import venv
from collections.abc import Iterator
from importlib.metadata import Distribution, distribution
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

__all__ = ["create_environment"]

ROOT = Path(__file__).parents[2]


def create_environment(folder: Path) -> Path:
    """The Python of a new environment, whose packages are links to those of this one."""
    venv.create(folder, symlinks=True, with_pip=False)
    packages = folder / "lib" / f"python{sys.version_info[0]}.{sys.version_info[1]}" / "site-packages"
    own = distribution("nag-server")  # its version; the code is that of this checkout
    links = {Path(str(own.locate_file(file.parts[0]))) for file in own.files or () if file.name == "METADATA"}
    for installed in _runtime_distributions():
        names = {file.parts[0] for file in installed.files or () if file.parts[0] not in ("..", "__pycache__")}
        links |= {Path(str(installed.locate_file(name))) for name in names}
    for path in links:
        (packages / path.name).symlink_to(path)
    return folder / "bin" / "python"


def _runtime_distributions() -> Iterator[Distribution]:
    """Those that the project's dependencies name, and theirs."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    waiting = [Requirement(line) for line in project["dependencies"]]
    seen: set[tuple[str, str]] = set()
    while waiting:
        required = waiting.pop()
        for extra in ("", *required.extras):
            key = (canonicalize_name(required.name), extra)
            if key in seen:
                continue
            seen.add(key)
            installed = distribution(required.name)
            if not extra:
                yield installed
            for line in installed.requires or ():
                further = Requirement(line)
                if further.marker is None or further.marker.evaluate({"extra": extra}):
                    waiting.append(further)
