"""A small client of the service's own HTTP surface, for the console script, the demo and the benchmarks."""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Any, Self
from urllib.parse import quote

import httpx

from app.errors import CommandError

__all__ = ["LOOPBACK", "Client", "ClientError"]

#: Above the longest time the server holds a request.
TIMEOUT_S = 300.0
POLL_S = 0.05

LOOPBACK = re.compile(r"https?://(127\.|localhost\b|\[::1\])")


class ClientError(CommandError):
    """A request that failed. `param` is the field that was refused."""

    def __init__(self, message: str, param: str | None = None) -> None:
        super().__init__(message)
        self.param = param


class Client:
    """Talks to one server. Every method raises ClientError."""

    def __init__(self, url: str, api_key: str | None = None) -> None:
        self._url = url.rstrip("/")
        headers = {} if api_key is None else {"authorization": f"Bearer {api_key}"}
        # A proxy from the environment has no business between two programs on one machine.
        self._http = httpx.Client(timeout=TIMEOUT_S, headers=headers, trust_env=LOOPBACK.match(self._url) is None)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._http.close()

    def ready(self) -> bool:
        """Whether a worker serves the default model; False as well while nothing answers."""
        try:
            return self._http.get(f"{self._url}/readyz").status_code == 200
        except httpx.TransportError:
            return False

    def generate(
        self, body: dict[str, Any], on_change: Callable[[dict[str, Any]], None] | None = None
    ) -> dict[str, Any]:
        """Returns the finished job, polled meanwhile where `on_change` is to be told of every state."""
        headers = {} if on_change else {"prefer": "wait=120"}
        job = self._json("POST", "/v1/jobs", json=body, headers=headers)
        while True:
            if on_change:
                on_change(job)
            if job["status"] not in ("queued", "in_progress"):
                break
            time.sleep(POLL_S)
            job = self._json("GET", f"/v1/jobs/{job['id']}")
        if job["status"] != "completed":
            raise ClientError((job["error"] or {}).get("message") or f"the job was {job['status']}")
        return job

    def result(self, job: dict[str, Any], index: int = 0) -> bytes:
        """Returns the bytes of one image or video."""
        return self._send("GET", f"/v1/jobs/{job['id']}/result?index={index}").content

    def models(self) -> list[dict[str, Any]]:
        """Returns the models that the server serves."""
        models: list[dict[str, Any]] = self._json("GET", "/v1/models")["data"]
        return models

    def add_file(self, path: Path) -> str:
        """Uploads a file that requests start from; returns its id. Raises OSError as well."""
        with path.open("rb") as file:
            return str(self._json("POST", "/v1/files", files={"file": (path.name, file)})["id"])

    def delete_file(self, file_id: str) -> None:
        """Removes an uploaded file."""
        self._send("DELETE", f"/v1/files/{file_id}")

    def loras(self, model: str | None = None) -> list[dict[str, Any]]:
        """Returns the LoRAs that requests may name, of one model or of all."""
        listed = self._json("GET", "/v1/loras", params={} if model is None else {"model": model})
        loras: list[dict[str, Any]] = listed["data"]
        return loras

    def add_lora(self, path: Path, form: dict[str, str]) -> dict[str, Any]:
        """Uploads a file. Raises OSError as well."""
        with path.open("rb") as file:
            return self._json("POST", "/v1/loras", files={"file": (path.name, file)}, data=form)

    def delete_lora(self, name: str) -> None:
        """Removes an uploaded one."""
        self._send("DELETE", f"/v1/loras/{quote(name, safe='')}")

    def _json(self, method: str, path: str, **request: Any) -> dict[str, Any]:
        answer: dict[str, Any] = self._send(method, path, **request).json()
        return answer

    def _send(self, method: str, path: str, **request: Any) -> httpx.Response:
        try:
            answer = self._http.request(method, self._url + path, **request)
        except (httpx.InvalidURL, httpx.UnsupportedProtocol) as exc:
            raise ClientError(f"{self._url}: not a URL of a server: {exc}") from exc
        except httpx.ConnectError as exc:
            raise ClientError(f"no server at {self._url}; start one with `nag-server up`") from exc
        except httpx.HTTPError as exc:
            raise ClientError(f"{self._url}: {exc or type(exc).__name__}") from exc
        if answer.is_error:
            raise _refusal(answer)
        return answer


def _refusal(answer: httpx.Response) -> ClientError:
    try:
        error = answer.json()["error"]
        return ClientError(str(error["message"]), error.get("param"))
    except (ValueError, LookupError, TypeError, AttributeError):
        return ClientError(f"{answer.url} answered {answer.status_code}, not as a NAG server does")
