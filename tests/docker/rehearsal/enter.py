"""In a mount namespace of its own: lay a container's file system, become its user, and run its command in this process.

The only argument is the file of a `container.Container` as JSON. Runs on the system's Python alone.
"""

from __future__ import annotations

import ctypes
import fcntl
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

SYSTEM = ("/usr", "/bin", "/sbin", "/lib", "/lib64")
DEVICES = ("null", "zero", "full", "random", "urandom")
PR_SET_NO_NEW_PRIVS = 38


def main() -> None:
    container = json.loads(Path(sys.argv[1]).read_text())
    root = Path(container["root"])
    with root.with_suffix(".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # a check enters while the container's own command may still be at this
        lay(root, container)
    os.chroot(root)
    os.chdir(container["folder"])
    user, group = map(int, container["user"].split(":"))
    os.setgroups([])
    os.setresgid(group, group, group)
    os.setresuid(user, user, user)
    if user and ctypes.CDLL(None).prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0):
        raise OSError("no_new_privs is refused")
    command = container["command"]
    os.execvpe(command[0], command, container["environment"])


def lay(root: Path, container: dict[str, Any]) -> None:
    bind(root, root)
    for each in map(Path, SYSTEM):
        if each.is_symlink():
            if not inside(root, each).is_symlink():
                inside(root, each).symlink_to(each.readlink())
        elif each.exists():
            bind(each, inside(root, each), read_only=True)
    (root / "proc").mkdir(exist_ok=True)
    mount("-t", "proc", "proc", str(root / "proc"))
    (root / "dev").mkdir(exist_ok=True)
    for name in DEVICES:
        bind(Path("/dev", name), root / "dev" / name)
    tmpfs(root / "dev" / "shm", "mode=1777,size=64m")
    for target, options in container["tmpfs"].items():
        tmpfs(inside(root, target), options)
    for source, target, writable in container["binds"]:
        bind(Path(source), inside(root, target), read_only=not writable)
    inside(root, container["folder"]).mkdir(parents=True, exist_ok=True)
    if container["read_only"]:
        mount("-o", "remount,bind,ro", str(root))


def inside(root: Path, path: str | Path) -> Path:
    return root / str(path).lstrip("/")


def bind(source: Path, target: Path, *, read_only: bool = False) -> None:
    if not target.exists():
        if source.is_dir():
            target.mkdir(parents=True)
        else:
            target.parent.mkdir(parents=True, exist_ok=True)
            target.touch()
    mount("--bind", str(source), str(target))
    if read_only:
        mount("-o", "remount,bind,ro", str(target))


def tmpfs(target: Path, options: str) -> None:
    target.mkdir(parents=True, exist_ok=True)
    mount("-t", "tmpfs", "-o", options, "tmpfs", str(target))


def mount(*arguments: str) -> None:
    subprocess.run(["/bin/mount", *arguments], check=True)


if __name__ == "__main__":
    main()
