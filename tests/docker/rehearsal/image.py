"""The image's files, made by the Dockerfile's own instructions; this machine's packages for what it would fetch."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import sys
import sysconfig
from pathlib import Path

from tests.docker import context, dockerfile
from tests.docker.rehearsal.container import PATH, Container, RehearsalError

NAME_SERVER = "127.0.0.11"
BUILD_S = 300.0
#: The first folder of PATH, and empty in Debian.
PROGRAMS = "/usr/local/sbin"
ETC = (
    "ssl",
    "ca-certificates.conf",
    "ld.so.cache",
    "alternatives",
    "nsswitch.conf",
    "resolv.conf",
    "pip.conf",
    "mime.types",
)


def environment(stage: dockerfile.Stage) -> dict[str, str]:
    """The variables of its instructions."""
    return {"PATH": PATH} | {name: value.replace("$PATH", PATH) for name, value in stage.environment.items()}


def system(folder: Path, names: tuple[str, ...] = ()) -> list[tuple[str, str, bool]]:
    """What every container has of this machine: Python, /etc, and hosts that are all this one."""
    programs = folder / "programs"
    programs.mkdir(exist_ok=True)
    hosts = folder / "hosts"
    hosts.write_text(f"127.0.0.1 {' '.join(['localhost', os.uname().nodename, *names])}\n")
    resolv = folder / "resolv.conf"
    resolv.write_text(f"nameserver {NAME_SERVER}\n")
    binds = [(f"/etc/{each}", f"/etc/{each}", False) for each in ETC if Path("/etc", each).exists()]
    binds += [(str(resolv), "/etc/resolv.conf", False)] if names else [("/etc/resolv.conf", "/etc/resolv.conf", False)]
    binds += [(str(hosts), "/etc/hosts", False), (str(programs), PROGRAMS, False)]
    if not sys.base_prefix.startswith("/usr"):
        binds.append((sys.base_prefix, sys.base_prefix, False))
    return binds


def build(folder: Path) -> Path:
    """Builds what the stage `service` leaves in /opt: COPY, by .dockerignore, then RUN. Raises RehearsalError."""
    stages = dockerfile.load()
    stage = stages["service"]
    source, opt = folder / "src", folder / "opt"
    opt.mkdir()
    copied = {each for copy in stage.copies for each in copy.sources}
    for path in context.files():
        if path.split("/")[0] in copied:
            (source / path).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(dockerfile.ROOT / path, source / path)
    builder = Container(
        "service", str(folder / "builder"), (), folder=stage.folder,
        environment=tuple((environment(stage) | _pip()).items()), tmpfs=(("/tmp", "mode=1777"), ("/root", "mode=700")),
        binds=(
            *system(folder), *_python(folder), *_wheels(), (str(source), stage.folder, True), (str(opt), "/opt", True),
        ),
    )  # fmt: skip
    for run in stage.runs:
        code, said = builder.execute(
            ["/bin/bash", "-o", "pipefail", "-c", re.sub(r"^(--mount=\S+ )+", "", run)], BUILD_S
        )
        if code:
            raise RehearsalError(f"RUN {run}\n{said}")
    libraries = opt / "nag" / "lib" / f"python{sys.version_info[0]}.{sys.version_info[1]}" / "site-packages"
    (libraries / "dependencies.pth").write_text("/dependencies\n")
    return opt / "nag"


def dependencies() -> tuple[str, str, bool]:
    """The packages that `pip install -r` would have put there."""
    return sysconfig.get_paths()["purelib"], "/dependencies", False


def _python(folder: Path) -> list[tuple[str, str, bool]]:
    """The command `python`, with pip, as the base image has it: this machine may have neither for its own Python."""
    program = folder / "builder-programs" / "python"
    program.parent.mkdir()
    program.write_text(f'#!/bin/sh\nexec {shlex.quote(sys.executable)} "$@"\n')
    program.chmod(0o755)
    return [(str(program.parent), PROGRAMS, False), (sys.prefix, sys.prefix, False)]


def _pip() -> dict[str, str]:
    """How this machine's pip reaches its index; the image's own settings stay."""
    names = (
        "PIP_CERT",
        "PIP_INDEX_URL",
        "PIP_EXTRA_INDEX_URL",
        "PIP_FIND_LINKS",
        "HTTPS_PROXY",
        "https_proxy",
        "SSL_CERT_FILE",
    )
    return {name: os.environ[name] for name in names if name in os.environ}


def _wheels() -> list[tuple[str, str, bool]]:
    folders = re.findall(r"(?:file://)?(/\S+)", " ".join(_pip().values()))
    return [
        (each, each, False)
        for each in {f"/{path.split('/')[1]}/{path.split('/')[2]}" for path in folders if path.startswith("/opt/")}
    ]
