"""Installs the clients of clients.toml, runs each against one service with the embedded models, and prints a table.

What a client is told and throws away is read from the service: each client has an API key and a tenant of its own.
"""

from __future__ import annotations

import argparse
import base64
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import tomllib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
from PIL import Image

from app.auth import ApiKey
from app.auth.api_key import digest
from app.cli.local_service import running
from tests.pictures import png

FOLDER = Path(__file__).parent
PROGRAMS = FOLDER / "programs"
INSTALLED = FOLDER.parents[1] / ".tools" / "clients"
#: What an installation, and all requests of a program, may take.
INSTALL_S, RUN_S = 900, 300
#: The program that a kind of client cannot do without.
NEEDED = {"node": "npm", "java": "java", "curl": "curl"}
VERSIONS = {"java": ["java", "--version"], "curl": ["curl", "--version"]}


@dataclass(frozen=True)
class Client:
    """One entry of clients.toml."""

    name: str
    kind: str
    program: str
    packages: tuple[str, ...] = ()
    #: A package that is too large to install, and what is taken of it: files, and folders whose names end in a slash.
    part_of: str = ""
    parts: tuple[str, ...] = ()

    @property
    def slug(self) -> str:
        return re.sub(r"[^a-z0-9]+", "-", self.name.lower()).strip("-")

    @property
    def folder(self) -> Path:
        return INSTALLED / self.slug

    @property
    def versions(self) -> str:
        return ", ".join(filter(None, (self.part_of, *self.packages)))


@dataclass(frozen=True)
class Row:
    """One line of the table."""

    client: str
    version: str
    request: str
    result: str
    passed: bool
    warnings: str = ""


def main() -> int:
    parser = argparse.ArgumentParser(prog="tests.clients", description=__doc__)
    parser.add_argument("names", nargs="*", help="parts of the names of clients; absent: all of them")
    names = [name.lower() for name in parser.parse_args().names]
    clients = load_clients()
    clients = [client for client in clients if not names or any(name in client.name.lower() for name in names)]
    if not clients:
        parser.error(f"no client of this name; there are {', '.join(client.name for client in load_clients())}")
    rows: list[Row] = []
    ready = []
    for client in clients:
        print(f"{client.name}: installing", file=sys.stderr, flush=True)
        if (problem := _install(client)) is None:
            ready.append(client)
        else:
            rows.append(Row(client.name, _version(client), "–", f"not tried: {problem}", passed=False))
    keys = [ApiKey(id=client.slug, tenant=client.slug, sha256=digest(client.slug)) for client in ready]
    settings = {"NAG_API_KEYS": json.dumps([key.model_dump(mode="json") for key in keys])}
    with tempfile.TemporaryDirectory(prefix="nag-clients-") as folder, running(Path(folder), settings=settings) as url:
        for client in ready:
            rows += _run(client, url)
    print(_table(rows))
    failed = sum(not row.passed for row in rows)
    print(f"\n{len(rows) - failed} of {len(rows)} requests passed")
    return 1 if failed else 0


def load_clients() -> list[Client]:
    """Reads clients.toml."""
    entries = tomllib.loads((FOLDER / "clients.toml").read_text())["clients"]
    lists = ("packages", "parts")
    return [Client(**{**entry, **{name: tuple(entry.get(name, ())) for name in lists}}) for entry in entries]


def _install(client: Client) -> str | None:
    """Installs the client's packages once. Returns the problem if it cannot be had."""
    needed = NEEDED.get(client.kind)
    if needed is not None and shutil.which(needed) is None:
        return f"no {needed} on the PATH"
    stamp, wanted = (
        client.folder / "installed.txt",
        "\n".join((*client.packages, client.part_of, *client.parts)).strip(),
    )
    if not client.packages or (stamp.exists() and stamp.read_text() == wanted):
        return None
    shutil.rmtree(client.folder, ignore_errors=True)
    client.folder.mkdir(parents=True)
    commands: list[list[str | Path]]
    if client.kind == "node":
        (client.folder / "package.json").write_text('{"private": true, "type": "module"}')
        commands = [["npm", "install", "--no-audit", "--no-fund", "--loglevel=error", *client.packages]]
    else:
        pip: list[str | Path] = [_python(client), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
        commands = [[sys.executable, "-m", "venv", client.folder], [*pip, *client.packages]]
    for command in commands:
        try:
            done = subprocess.run(command, cwd=client.folder, capture_output=True, text=True, timeout=INSTALL_S)
        except subprocess.TimeoutExpired:
            return f"not installed within {INSTALL_S} s"
        if done.returncode:
            return f"cannot install {client.versions}: {' '.join(done.stderr.split())[-300:]}"
    if client.part_of and (problem := _extract(client)) is not None:
        return problem
    stamp.write_text(wanted)
    return None


def _extract(client: Client) -> str | None:
    """Puts the parts of a package into the client's folder `extracted`. Returns the problem if it cannot be had."""
    with tempfile.TemporaryDirectory(prefix="nag-clients-") as folder:
        if client.kind == "node":
            command = ["npm", "pack", "--silent", client.part_of]
        else:
            command = [str(_python(client)), "-m", "pip", "download", "--quiet", "--no-deps", client.part_of]
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=INSTALL_S)
        if done.returncode:
            return f"cannot fetch {client.part_of}: {' '.join(done.stderr.split())[-300:]}"
        [archive] = Path(folder).iterdir()
        unpacked = Path(folder) / "unpacked"
        shutil.unpack_archive(archive, unpacked, "zip" if archive.suffix == ".whl" else "gztar")
        root = unpacked / "package" if client.kind == "node" else unpacked
        for part in client.parts:
            target = client.folder / "extracted" / part
            target.parent.mkdir(parents=True, exist_ok=True)
            (shutil.copytree if part.endswith("/") else shutil.copy)(root / part, target)
    return None


def _python(client: Client) -> Path:
    return client.folder / "bin" / "python"


def _run(client: Client, url: str) -> list[Row]:
    print(f"{client.name}: running", file=sys.stderr, flush=True)
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("NAG_", "PYTHON"))}
    environment |= {
        "SERVICE_URL": url,
        "SERVICE_KEY": client.slug,
        "SERVICE_PNG": base64.b64encode(png(Image.new("RGB", (64, 64), "gray"))).decode(),
    }
    program = PROGRAMS / client.program
    if client.kind == "node":  # Node finds a program's packages beside it
        for file in (program, PROGRAMS / "reporting.mjs"):
            shutil.copy(file, client.folder)
    commands: dict[str, list[str | Path]] = {
        "python": [_python(client), program],
        "recorded": [sys.executable, program],
        "node": ["node", client.folder / client.program],
        "java": ["java", program],
        "curl": ["sh", program],
    }
    command = commands[client.kind]
    log = INSTALLED / f"{client.slug}.log"
    log.parent.mkdir(parents=True, exist_ok=True)
    version, ended = _version(client), ""
    with log.open("w") as errors:
        try:
            done = subprocess.run(
                command, env=environment, stdout=subprocess.PIPE, stderr=errors, text=True, timeout=RUN_S
            )
            text = done.stdout
            if done.returncode:
                ended = f"ended with code {done.returncode}, see {log}"
        except subprocess.TimeoutExpired as late:
            text, ended = _text(late.stdout), f"not done within {RUN_S} s"
    said = [json.loads(line) for line in text.splitlines() if line.startswith('{"request"')]
    rows = [Row(client.name, version, line["request"], line["result"], line["passed"]) for line in said]
    if ended or not said:
        rows.append(Row(client.name, version, "–", ended or f"said nothing, see {log}", passed=False))
    rows[-1] = Row(**{**vars(rows[-1]), "warnings": "; ".join(_warnings(url, client))})
    return rows


def _text(output: Any) -> str:
    return output.decode() if isinstance(output, bytes) else output or ""


def _warnings(url: str, client: Client) -> list[str]:
    """Returns what the service said to this client's requests, each once, the latest last."""
    headers = {"authorization": f"Bearer {client.slug}"}
    jobs = httpx.get(f"{url}/v1/jobs", params={"limit": 100}, headers=headers, timeout=60).json()["data"]
    return list(dict.fromkeys(warning for job in reversed(jobs) for warning in job["warnings"]))


def _version(client: Client) -> str:
    if client.packages:
        return client.versions
    if client.kind not in VERSIONS:
        return "–"
    try:
        done = subprocess.run(VERSIONS[client.kind], capture_output=True, text=True, timeout=60)
    except OSError:
        return "–"
    return " ".join(done.stdout.split()[:2])


def _table(rows: Sequence[Row]) -> str:
    lines = ["| client | version | request | result | warnings said |", "|" + " --- |" * 5]
    for row in rows:
        cells = (row.client, row.version, row.request, row.result if row.passed else f"**{row.result}**", row.warnings)
        lines.append("| " + " | ".join(cell.replace("|", "/") for cell in cells) + " |")
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
