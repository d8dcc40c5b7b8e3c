"""A real Chromium without a window, spoken to by its DevTools protocol."""

from __future__ import annotations

import base64
import itertools
import json
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
from websockets.sync.client import ClientConnection, connect

from tests.limits import HANG_S

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")

#: Plays a video to its end and tells what was seen: sizes, times, frames, and the last frame's pixels.
PLAY = """
new Promise((done) => {
  const video = document.createElement("video");
  video.muted = true;
  video.onerror = () => done({error: video.error.code + " " + video.error.message});
  video.onended = () => {
    const canvas = document.createElement("canvas");
    canvas.width = video.videoWidth;
    canvas.height = video.videoHeight;
    const context = canvas.getContext("2d");
    context.drawImage(video, 0, 0);
    const quality = video.getVideoPlaybackQuality();
    done({
      width: video.videoWidth, height: video.videoHeight, duration_s: video.duration,
      played_s: video.played.end(0), decoded: quality.totalVideoFrames, corrupted: quality.corruptedVideoFrames,
      pixels: btoa(String.fromCharCode(...context.getImageData(0, 0, canvas.width, canvas.height).data)),
    });
  };
  video.src = %s;
  document.body.append(video);
  video.play().catch((error) => done({error: String(error)}));
})
"""


def find() -> str | None:
    return next(filter(None, map(shutil.which, NAMES)), None)


class Page:
    """One page of a running browser."""

    def __init__(self, socket: ClientConnection) -> None:
        self._socket = socket
        self._ids = itertools.count(1)

    def open(self, url: str) -> None:
        self._call("Page.enable")
        self._call("Page.navigate", url=url)
        while json.loads(self._socket.recv(timeout=HANG_S)).get("method") != "Page.loadEventFired":
            pass

    def evaluate(self, script: str) -> Any:
        """What the script's last expression is, or what its promise comes to."""
        said = self._call("Runtime.evaluate", expression=script, awaitPromise=True, returnByValue=True)
        assert "exceptionDetails" not in said, said["exceptionDetails"]
        return said["result"].get("value")

    def plays_h264(self) -> bool:
        """Some builds leave it out."""
        return bool(self.evaluate("""document.createElement("video").canPlayType('video/mp4; codecs="avc1.64000a"')"""))

    def play(self, url: str) -> dict[str, Any]:
        seen = self.try_to_play(url)
        assert "error" not in seen, seen
        seen["pixels"] = base64.b64decode(seen["pixels"])
        return seen

    def try_to_play(self, url: str) -> dict[str, Any]:
        """What was seen, or `error`."""
        seen: dict[str, Any] = self.evaluate(PLAY % json.dumps(url))
        return seen

    def status(self, url: str) -> int:
        """Of the answer that this page gets."""
        return int(self.evaluate(f"fetch({json.dumps(url)}, {{cache: 'no-store'}}).then((answer) => answer.status)"))

    def _call(self, method: str, **params: Any) -> dict[str, Any]:
        number = next(self._ids)
        self._socket.send(json.dumps({"id": number, "method": method, "params": params}))
        while True:
            message = json.loads(self._socket.recv(timeout=HANG_S))
            if message.get("id") == number:
                assert "error" not in message, message
                result: dict[str, Any] = message["result"]
                return result


@contextmanager
def browsing(executable: str, folder: Path) -> Iterator[Page]:
    """A page of a browser whose profile is `folder`."""
    process = subprocess.Popen(
        [
            executable, "--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--mute-audio",
            "--no-first-run", "--no-proxy-server", "--disable-background-networking",
            "--autoplay-policy=no-user-gesture-required", "--remote-debugging-port=0", f"--user-data-dir={folder}",
            "about:blank",
        ],
        stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    try:
        port = _port(process, folder / "DevToolsActivePort")
        targets = httpx.get(f"http://127.0.0.1:{port}/json/list", trust_env=False).json()
        page = next(each for each in targets if each["type"] == "page")
        with connect(page["webSocketDebuggerUrl"], max_size=None, proxy=None) as socket:
            yield Page(socket)
    finally:
        process.terminate()
        process.wait(HANG_S)


@contextmanager
def playing(folder: Path) -> Iterator[Page]:
    """A page of a browser that plays videos; without one the test is skipped."""
    executable = find()
    if executable is None:
        pytest.skip(f"no browser here: none of {', '.join(NAMES)} is on the PATH")
    with browsing(executable, folder) as page:
        if not page.plays_h264():
            pytest.skip(f"{executable} was built without H.264")
        yield page


def _port(process: subprocess.Popen[bytes], file: Path) -> int:
    deadline = time.monotonic() + HANG_S
    while True:
        lines = file.read_text().splitlines() if file.exists() else []
        if lines:
            return int(lines[0])
        assert process.poll() is None, f"the browser ended with code {process.returncode}"
        assert time.monotonic() < deadline, "the browser does not come up"
        time.sleep(0.05)
