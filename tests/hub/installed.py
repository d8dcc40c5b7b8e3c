"""Virtual environments with what an installation of the service or of the library alone brings, and nothing else."""

from __future__ import annotations

import sys
import tomllib
import venv
from collections.abc import Iterable, Iterator
from importlib.metadata import Distribution, distribution
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

__all__ = ["ROOT", "create_empty_environment", "create_environment", "link_dependencies"]

ROOT = Path(__file__).parents[2]


#: What this checkout has the code of.
OWN = ("nag-server", "nag-diffusers")


def create_environment(folder: Path) -> Path:
    """Returns the Python of a new environment for the service: links to this one's packages, with its metadata.

    Its code is that of this checkout, for PYTHONPATH.
    """
    python, packages = create_empty_environment(folder)
    own = distribution("nag-server")
    metadata = {Path(str(own.locate_file(file.parts[0]))) for file in own.files or () if file.name == "METADATA"}
    link_dependencies(packages, ROOT / "pyproject.toml", ROOT / "nag" / "pyproject.toml")
    for path in metadata:
        (packages / path.name).symlink_to(path)
    return python


def create_empty_environment(folder: Path) -> tuple[Path, Path]:
    """Returns the Python of a new environment and the folder of its packages."""
    venv.create(folder, symlinks=True, with_pip=False)
    version = f"python{sys.version_info[0]}.{sys.version_info[1]}"
    return folder / "bin" / "python", folder / "lib" / version / "site-packages"


def link_dependencies(packages: Path, *projects: Path) -> None:
    """Puts in the folder links to this environment's packages that the projects depend on, and to theirs."""
    requirements = [
        Requirement(line)
        for project in projects
        for line in tomllib.loads(project.read_text(encoding="utf-8"))["project"]["dependencies"]
    ]
    paths = set()
    for installed in _distributions(requirement for requirement in requirements if requirement.name not in OWN):
        names = {file.parts[0] for file in installed.files or () if file.parts[0] not in ("..", "__pycache__")}
        paths |= {Path(str(installed.locate_file(name))) for name in names}
    for path in paths:
        (packages / path.name).symlink_to(path)


def _distributions(requirements: Iterable[Requirement]) -> Iterator[Distribution]:
    """Yields what the requirements name, and what that requires."""
    waiting = list(requirements)
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
