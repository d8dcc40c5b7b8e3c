"""The rehearsal itself, in namespaces of its own: start, ask, look, end."""

from __future__ import annotations

import fcntl
import json
import re
import socket
import struct
import subprocess
import textwrap
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from tests.docker import compose, dockerfile
from tests.docker.rehearsal import services
from tests.docker.rehearsal.container import Container, RehearsalError, end
from tests.docker.rehearsal.image import NAME_SERVER
from tests.limits import HANG_S

READY_S = 400.0  # a busy machine loads torch for minutes
CLEAN_ENDS = (0, 143)  # 128 + SIGTERM, of a program that leaves the signal to its default
SIOCSIFFLAGS, IFF_UP = 0x8914, 0x1


def play(folder: Path) -> int:
    """The exit code: 0, or 1 where a step failed."""
    return _Play(folder).run()


class _Play:
    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._services: dict[str, dict[str, Any]] = compose.load()["services"]
        self._running: dict[str, tuple[Container, subprocess.Popen[bytes]]] = {}
        self._failed = False
        (folder / "containers").mkdir()

    def run(self) -> int:
        _loopback_up()
        _name_server(self._running)
        key = self._step("secrets", self._secrets)
        for name in self._order():
            if reason := services.skipped(name, self._services[name]):
                print(f"skipped {name}: {reason}", flush=True)
                continue
            if not self._failed:
                self._step(f"{name}: starts and is healthy", partial(self._start, name))
        if not self._failed:
            for name in self._running:
                self._step(f"{name}: no rights", partial(self._look, name))
            self._step("a picture over HTTP", lambda: self._picture(str(key)))
            self._step("worker: ready as the chart asks", self._chart_readiness)
            self._step("refusals", self._refusals)
            self._step("metrics", self._metrics)
            if "prometheus" in self._running:
                self._step("prometheus scrapes", self._scrapes)
        for name in reversed(self._running):
            self._step(f"{name}: ends", partial(self._end, name))
        return int(self._failed)

    def _step(self, name: str, step: Callable[[], str]) -> str | None:
        begun_s = time.monotonic()
        try:
            said = step()
        except (RehearsalError, OSError, subprocess.SubprocessError) as error:
            self._failed = True
            print(f"FAILED  {name}: {error}", flush=True)
            return None
        shown = "" if name == "secrets" else f": {said}"
        print(f"ok      {name}{shown} ({time.monotonic() - begun_s:.1f} s)", flush=True)
        return said

    def _secrets(self) -> str:
        script = dockerfile.ROOT / "docker" / "secrets.sh"
        environment = {"PATH": "/usr/bin:/bin", "NAG_SECRETS_FOLDER": str(self._folder / "secrets")}
        said = subprocess.run([script], env=environment, check=True, capture_output=True, text=True).stdout
        (self._folder / "secrets").chmod(
            0o711
        )  # an engine binds the files as root; here their reader's way leads there
        return said.split()[-1]

    def _order(self) -> list[str]:
        """Whom others depend on, first."""
        order: list[str] = []
        while len(order) < len(self._services):
            order += [
                name for name, each in self._services.items()
                if name not in order and set(each.get("depends_on", ())) <= set(order)
            ]  # fmt: skip
        return order

    def _start(self, name: str) -> str:
        service = self._services[name]
        made = services.container(name, service, self._folder, self._folder / "opt" / "nag", tuple(self._services))
        process = made.run(self._log(name))
        self._running[name] = made, process
        check, deadline = services.healthcheck(service), time.monotonic() + READY_S
        while (said := made.execute(check, compose.seconds(_timing(service)["timeout"])))[0]:
            if process.poll() is not None:
                raise RehearsalError(f"ended with code {process.returncode}\n{self._said(name)}")
            if time.monotonic() > deadline:
                raise RehearsalError(f"{' '.join(check)!r} says {said}\n{self._said(name)}")
            time.sleep(0.3)
        return f"{' '.join(made.command)!r} as {made.user}"

    def _look(self, name: str) -> str:
        """What the kernel says of its first process, and whether it can write where it should not."""
        made, process = self._running[name]
        status = dict(re.findall(r"^(\w+):\s*(.*)$", Path(f"/proc/{process.pid}/status").read_text(), re.MULTILINE))
        ids = {*status["Uid"].split(), *status["Gid"].split()}
        if ids != set(made.user.split(":")) or int(status["CapEff"], 16) or status["NoNewPrivs"] != "1":
            raise RehearsalError(f"ids {ids}, capabilities {status['CapEff']}, no_new_privs {status['NoNewPrivs']}")
        seen = Path(f"/proc/{process.pid}/environ").read_bytes()
        for secret in (self._folder / "secrets").iterdir():
            words = re.findall(rb"[\w-]{40,}", secret.read_bytes())
            if any(word in seen for word in words):
                raise RehearsalError(f"{secret.name} stands in its environment")
        for path in ("/written", f"{made.folder.rstrip('/')}/../written", "/run/secrets/written"):
            code, said = made.execute(["/bin/sh", "-c", f": > {path}"], 10, user="0:0")
            if code == 0 or "Read-only file system" not in said:
                raise RehearsalError(f"root could write {path}: {said}")
        return f"uid:gid {made.user}, no capability, no_new_privs, a read-only root"

    def _picture(self, key: str) -> str:
        deadline = time.monotonic() + READY_S
        while _ask("/readyz")[0] != 200:
            if time.monotonic() > deadline:
                raise RehearsalError(f"not ready: {_ask('/readyz')}\n{self._said('worker')}")
            time.sleep(0.3)
        body = {"prompt": "a shape", "negative_prompt": "a red shape", "seed": 7}
        status, said = _ask("/v1/jobs", key, json.dumps(body).encode(), {"prefer": "wait=60"})
        job = json.loads(said)
        if status != 200 or job["status"] != "completed" or not job["nag"]["applied"]:
            raise RehearsalError(f"{status} {said!r}")
        status, data = _ask(f"/v1/jobs/{job['id']}/result", key)
        if status != 200 or not data.startswith(b"\x89PNG"):
            raise RehearsalError(f"{status} {data[:80]!r}")
        return f"{len(data)} bytes of PNG, NAG applied"

    def _chart_readiness(self) -> str:
        """The command of the chart's readinessProbe, once a model is loaded."""
        template = (dockerfile.ROOT / "docker" / "helm" / "nag-server" / "templates" / "workers.yaml").read_text()
        probe = re.search(r"readinessProbe:.*?- \|\n(.*?)\n +periodSeconds", template, re.DOTALL)
        if probe is None:
            raise RehearsalError("there is no such probe")
        code, said = self._running["worker"][0].execute(["python", "-c", textwrap.dedent(probe[1])], 30)
        if code:
            raise RehearsalError(f"code {code}: {said}")
        return "its command ends with 0"

    def _refusals(self) -> str:
        seen = {
            path: _ask(path, key)[0]
            for path, key in (("/v1/jobs/x", None), ("/v1/models", "nag_wrong"), ("/metrics", None))
        }
        if set(seen.values()) != {401}:
            raise RehearsalError(str(seen))
        return "401 without a key and with a wrong one"

    def _metrics(self) -> str:
        key = (self._folder / "secrets" / "prometheus_api_key").read_text()
        status, said = _ask("/metrics", key)
        if status != 200 or b"nag_jobs_total{" not in said:
            raise RehearsalError(f"{status} {said[:200]!r}")
        return "read with Prometheus' key"

    def _scrapes(self) -> str:
        deadline = time.monotonic() + READY_S
        while True:
            _, said = _ask("/api/v1/query?query=up", port=9090)
            up = {each["metric"]["job"]: each["value"][1] for each in json.loads(said)["data"]["result"]}
            if len(up) > 1 and set(up.values()) == {"1"}:
                return f"up: {', '.join(sorted(up))}"
            if time.monotonic() > deadline:
                raise RehearsalError(f"{up}\n{self._said('prometheus')}")
            time.sleep(1)

    def _end(self, name: str) -> str:
        grace_s = compose.seconds(self._services[name].get("stop_grace_period", "10s"))
        code, took_s = end(self._running[name][1], grace_s)
        if code not in CLEAN_ENDS:
            raise RehearsalError(f"ended with code {code}\n{self._said(name)}")
        return f"code {code}, {took_s:.1f} of {grace_s:g} s"

    def _log(self, name: str) -> Path:
        return self._folder / "containers" / f"{name}.log"

    def _said(self, name: str) -> str:
        return "\n".join(self._log(name).read_text(errors="replace").splitlines()[-20:])


def _timing(service: dict[str, Any]) -> dict[str, str]:
    return {"timeout": "5s"} | service.get("healthcheck", {})


def _ask(
    path: str,
    key: str | None = None,
    body: bytes | None = None,
    headers: dict[str, str] | None = None,
    port: int = 8000,
) -> tuple[int, bytes]:
    request = urllib.request.Request(f"http://127.0.0.1:{port}{path}", body, headers or {})
    request.add_header("content-type", "application/json")
    if key is not None:
        request.add_header("authorization", f"Bearer {key}")
    try:
        with urllib.request.urlopen(request, timeout=HANG_S) as answer:
            return answer.status, answer.read()
    except urllib.error.HTTPError as error:
        return error.code, error.read()


def _loopback_up() -> None:
    with socket.socket() as any_socket:
        fcntl.ioctl(any_socket, SIOCSIFFLAGS, struct.pack("16sh14x", b"lo", IFF_UP))


def _name_server(running: Mapping[str, object]) -> None:
    """The engine's own: the address of a service that runs, where one asks by DNS. It ends with this process."""
    server = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    server.bind((NAME_SERVER, 53))
    threading.Thread(target=_answer, args=(server, running), daemon=True).start()


def _answer(server: socket.socket, running: Mapping[str, object]) -> None:
    while True:
        asked, client = server.recvfrom(512)
        labels, at = [], 12
        while asked[at]:
            labels.append(asked[at + 1 : at + 1 + asked[at]].decode())
            at += 1 + asked[at]
        question = asked[12 : at + 5]
        known = ".".join(labels) in running and question[-4:] == b"\0\1\0\1"  # an A record, of the internet
        header = asked[:2] + (b"\x84\0" if known else b"\x84\3") + b"\0\1" + (b"\0\1" if known else b"\0\0") + b"\0" * 4
        record = b"\xc0\x0c\0\1\0\1\0\0\0\1\0\4" + socket.inet_aton("127.0.0.1")
        server.sendto(header + question + (record if known else b""), client)
