"""`nag-server up` as a process: what a terminal, a supervisor and a crash do to it."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from queue import Empty, SimpleQueue

import httpx
import psutil
import pytest

from app import logs
from app.queue import embedded
from app.settings import Settings
from app.supervisor import supervisor, up
from tests.limits import HANG_S

pytestmark = pytest.mark.slow  # starts services

ROOT = Path(__file__).parents[1]


class Up:
    """A running `up`, its lines as they come, and every process it ever had."""

    def __init__(self, data_dir: Path, **environment: str) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-m", "app.cli", "up"],
            env=os.environ | {"NAG_DATA_DIR": str(data_dir), "NAG_PORT": "0", "NAG_DEVICE": "cpu"} | environment,
            cwd=ROOT,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )
        self.said: list[str] = []
        self._lines: SimpleQueue[str] = SimpleQueue()
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self._lines.put(line.rstrip())

    def until(self, pattern: str, timeout_s: float = HANG_S) -> re.Match[str]:
        """The next line that holds the pattern."""
        deadline = time.monotonic() + timeout_s
        while True:
            try:
                line = self._lines.get(timeout=max(0.0, deadline - time.monotonic()))
            except Empty:
                raise AssertionError(f"{pattern!r} was not said:\n" + "\n".join(self.said)) from None
            self.said.append(line)
            if match := re.search(pattern, line):
                return match

    def ready(self) -> str:
        return self.until(r"nag-server: ready at (\S+)")[1]

    def child(self, command: str) -> psutil.Process:
        (found,) = [each for each in self.processes() if command in each.cmdline()]
        return found

    def processes(self) -> list[psutil.Process]:
        return psutil.Process(self.process.pid).children(recursive=True)

    def end(self, number: int = signal.SIGTERM) -> int:
        self.process.send_signal(number)
        code = self.process.wait(HANG_S)
        time.sleep(0.1)
        while not self._lines.empty():
            self.said.append(self._lines.get())
        return code


Start = Callable[..., Up]


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    begun: list[Up] = []

    def start(data_dir: Path = tmp_path, **environment: str) -> Up:
        begun.append(Up(data_dir, **environment))
        return begun[-1]

    yield start
    for each in begun:
        if each.process.poll() is None:
            each.end()
        assert each.process.stdout is not None
        each.process.stdout.close()
    left = embedded.socket_path(tmp_path)
    if embedded._is_listening(left):
        embedded.start(Settings(data_dir=tmp_path)).stop()


def gone(processes: list[psutil.Process], timeout_s: float = HANG_S) -> bool:
    return not psutil.wait_procs(processes, timeout=timeout_s)[1]


def test_up_serves_and_ends_without_a_trace(start: Start) -> None:
    up = start(NAG_BATCH_WINDOW_MS="5")
    url = up.ready()
    states = [line.removeprefix("nag-server: ") for line in up.said if line.startswith("nag-server: ")]
    assert states[1:3] == ["starting", "valkey started"]
    assert [line for line in up.said if "NAG_BATCH_WINDOW_MS" in line] == [f"nag-server: {states[0]}"]
    assert "model loaded: shapes-flux" in states
    body = {"prompt": "a shape", "negative_prompt": "a red shape", "seed": 1}
    with httpx.Client(base_url=url, trust_env=False, timeout=HANG_S) as http:
        job = http.post("/v1/jobs", json=body, headers={"prefer": "wait=60"}).json()
        assert job["status"] == "completed"
        assert job["nag"]["applied"] is True
        assert http.get(f"/v1/jobs/{job['id']}/result").content.startswith(b"\x89PNG")
    processes = up.processes()
    assert len(processes) == 3
    assert up.end(signal.SIGINT) == 0
    assert gone(processes, 0.1)
    assert up.said[-1] == "nag-server: stopped"
    assert not any("Traceback" in line for line in up.said)


def test_a_second_up_on_the_same_folder_is_refused_in_one_line(start: Start, tmp_path: Path) -> None:
    first = start()
    first.until("valkey started")
    second = start()
    assert second.process.wait(HANG_S) == 1
    assert str(tmp_path) in second.until("another `nag-server up` runs")[0] + second.said[-1]
    assert len(second.said) == 1
    assert first.process.poll() is None


def test_a_taken_port_is_one_line(start: Start) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        up = start(NAG_PORT=str(port))
        assert up.process.wait(HANG_S) == 1
    up.until(f"port {port} on 127.0.0.1 is taken")
    assert len(up.said) == 1


def test_killed_outright_only_valkey_stays_and_is_adopted(start: Start) -> None:
    up = start()
    up.ready()
    api, worker = up.child("api"), up.child("worker")
    (valkey,) = [each for each in up.processes() if each not in (api, worker)]
    up.process.kill()
    up.process.wait()
    assert gone([api, worker])
    assert valkey.is_running()
    again = start()
    again.until("valkey adopted")
    again.ready()
    assert again.end() == 0
    assert not valkey.is_running()


def test_parts_that_die_are_started_again(start: Start) -> None:
    up = start()
    url = up.ready()
    for name in ("api", "worker"):
        up.child(name).kill()
        up.until(f"{name} ended with code -9; starting it again in 0.5 s")
    (valkey,) = [each for each in up.processes() if "valkey-server" in each.name()]
    valkey.kill()
    up.until("valkey is gone; starting it again in 0.5 s")
    up.until("valkey started")
    with httpx.Client(base_url=url, trust_env=False, timeout=HANG_S) as http:
        deadline = time.monotonic() + HANG_S
        while time.monotonic() < deadline:
            try:
                if http.get("/readyz").status_code == 200:
                    break
            except httpx.TransportError:
                pass
            time.sleep(0.2)
        job = http.post("/v1/jobs", json={"prompt": "a shape"}, headers={"prefer": "wait=60"}).json()
    assert job["status"] == "completed"
    processes = up.processes()
    assert up.end() == 0
    assert gone(processes, 0.1)


def test_a_part_that_never_lives_is_given_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(supervisor, "MOST_RESTARTS", 1)
    monkeypatch.setattr(supervisor, "FIRST_DELAY_S", 0.01)
    monkeypatch.setattr(logs, "configure", lambda _: None)
    settings = Settings(data_dir=tmp_path, port=0, device="no-such-device")
    assert up(settings) == 1
    said = capfd.readouterr()
    assert re.search(r"worker ended with code \d; starting it again in 0.01 s", said.out)
    assert re.search(r"worker ended with code \d, 2 times in a row: giving up", said.out)
    assert said.out.endswith("nag-server: stopped\n")
    assert "Traceback" not in said.err
    assert not embedded._is_listening(embedded.socket_path(tmp_path))


def test_a_mistake_in_the_catalog_is_one_line(start: Start, tmp_path: Path) -> None:
    catalog = tmp_path / "models.toml"
    catalog.write_text('default = "nothing"')
    up = start(NAG_CATALOG=str(catalog))
    assert up.process.wait(HANG_S) == 1
    up.until("models.toml: default")
    assert len(up.said) == 1


def test_told_to_stop_while_it_starts_it_stops(start: Start) -> None:
    up = start()
    up.until("valkey started")
    processes = up.processes()
    assert up.end() == 0
    assert gone(processes, 0.1)
    assert not any("Traceback" in line for line in up.said)


@pytest.mark.parametrize("busy", [False, True])
def test_told_twice_it_waits_for_nothing(start: Start, busy: bool) -> None:
    up = start(NAG_DRAIN_S="600", NAG_WAIT_MAX_S="600")
    url = up.ready()
    body = {"prompt": "a shape", "n": 10, "num_inference_steps": 50}
    with httpx.Client(base_url=url, trust_env=False, timeout=600) as http, ThreadPoolExecutor(1) as threads:
        for _ in range(5):
            http.post("/v1/jobs", json=body)
        held = threads.submit(http.post, "/v1/jobs", json=body, headers={"prefer": "wait=600"})
        up.until("job_claimed")
        api, worker = up.child("api"), up.child("worker")
        if busy:  # too much so to look between the two
            api.suspend()
        up.process.send_signal(signal.SIGINT)
        up.until("draining")
        up.process.send_signal(signal.SIGINT)
        assert gone([worker])
        if busy:
            api.resume()
        assert up.process.wait(HANG_S) == 0
        assert held.result(60).json()["status"] == "queued"
