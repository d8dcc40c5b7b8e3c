"""A Hugging Face hub on loopback: the routes that huggingface_hub calls, over local folders.

Set HF_ENDPOINT to `Hub.url`, and HF_HUB_DISABLE_XET=1, before huggingface_hub is imported.
"""

from __future__ import annotations

import asyncio
import hashlib
import re
import socket
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

import uvicorn
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route

__all__ = ["TOKEN", "Hub", "Repository", "serve_hub"]

#: Opens gated repositories.
TOKEN = "hf_" + "t" * 34
#: Files that the hub keeps outside of Git, whose ETag is a SHA-256.
LARGE_FILES = (".safetensors", ".bin", ".model", ".gguf", ".pt", ".pth", ".ckpt")
CHUNK_BYTES = 16_384


@dataclass(frozen=True)
class Repository:
    """A folder served under a repository's name.

    commits: the revisions that exist, all with the same files; `main` is the first.
    """

    folder: Path
    commits: tuple[str, ...]
    is_gated: bool = False

    @property
    def files(self) -> list[str]:
        return sorted(str(path.relative_to(self.folder)) for path in self.folder.rglob("*") if path.is_file())


@dataclass
class Hub:
    """bytes_per_s: speed of each download, changeable while it runs; None is as fast as possible."""

    repositories: dict[str, Repository]
    url: str = ""
    bytes_per_s: float | None = None
    #: (repository, file) per GET of a file's content, in order.
    downloads: list[tuple[str, str]] = field(default_factory=list)
    #: (method, path) per request, in order.
    requests: list[tuple[str, str]] = field(default_factory=list)

    def app(self) -> Starlette:
        name = "{owner}/{name}"
        return Starlette(
            routes=[
                Route(f"/api/models/{name}", self._model_info),
                Route(f"/api/models/{name}/revision/{{revision:path}}", self._model_info),
                Route(f"/api/models/{name}/tree/{{revision}}", self._tree),
                Route(f"/api/models/{name}/tree/{{revision}}/{{path:path}}", self._tree),
                Route(f"/{name}/resolve/{{revision}}/{{path:path}}", self._file, methods=["GET", "HEAD"]),
            ]
        )

    async def _model_info(self, request: Request) -> Response:
        name, repository, commit = self._find(request)
        siblings = [{"rfilename": file} for file in repository.files]
        gated = "auto" if repository.is_gated else False
        return JSONResponse({"id": name, "sha": commit, "private": False, "gated": gated, "siblings": siblings})

    async def _tree(self, request: Request) -> Response:
        _, repository, _ = self._find(request)
        folder = request.path_params.get("path", "")
        recursive = request.query_params.get("recursive", "").lower() in ("true", "1")
        entries = [
            _tree_entry(repository.folder, file)
            for file in repository.files
            if not folder or file.startswith(f"{folder}/")
            if recursive or "/" not in file.removeprefix(f"{folder}/")
        ]
        if folder and not entries:
            raise _refusal(404, "EntryNotFound", f"{folder} does not exist")
        return JSONResponse(entries)

    async def _file(self, request: Request) -> Response:
        name, repository, commit = self._find(request)
        if repository.is_gated:
            _check_token(request, name)
        file = request.path_params["path"]
        path = repository.folder / file
        headers = {"X-Repo-Commit": commit, "Accept-Ranges": "bytes"}
        if not path.is_file():
            raise _refusal(404, "EntryNotFound", "Entry not found", headers)
        size = path.stat().st_size
        first, last = _range(request, size)
        headers |= {"ETag": f'"{_etag(path)}"', "Content-Length": str(last + 1 - first)}
        headers |= {"Content-Type": "application/octet-stream"}
        status = 200
        if "range" in request.headers:
            status = 206
            headers["Content-Range"] = f"bytes {first}-{last}/{size}"
        if request.method == "HEAD":
            return Response(status_code=status, headers=headers)
        self.downloads.append((name, file))
        return StreamingResponse(
            self._content(path.read_bytes()[first : last + 1]), status_code=status, headers=headers
        )

    async def _content(self, data: bytes) -> AsyncIterator[bytes]:
        for start in range(0, len(data), CHUNK_BYTES):
            chunk = data[start : start + CHUNK_BYTES]
            if self.bytes_per_s is not None:
                await asyncio.sleep(len(chunk) / self.bytes_per_s)
            yield chunk

    def _find(self, request: Request) -> tuple[str, Repository, str]:
        """The repository's name, the repository and the commit of the revision asked for."""
        self.requests.append((request.method, request.url.path))
        name = f"{request.path_params['owner']}/{request.path_params['name']}"
        repository = self.repositories.get(name)
        if repository is None:
            raise _refusal(401, "RepoNotFound", "Repository not found")
        revision = request.path_params.get("revision", "main")
        commit = repository.commits[0] if revision == "main" else revision
        if commit not in repository.commits:
            raise _refusal(404, "RevisionNotFound", f"Invalid rev id: {revision}")
        return name, repository, commit


@contextmanager
def serve_hub(repositories: dict[str, Repository], bytes_per_s: float | None = None) -> Iterator[Hub]:
    """Serves the repositories at a free port of 127.0.0.1 until the block ends."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        hub = Hub(repositories, f"http://127.0.0.1:{listener.getsockname()[1]}", bytes_per_s)
        server = uvicorn.Server(uvicorn.Config(hub.app(), log_level="warning", lifespan="off"))
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
        thread.start()
        try:
            yield hub
        finally:
            server.force_exit = server.should_exit = True
            thread.join()


def _tree_entry(folder: Path, file: str) -> dict[str, object]:
    path = folder / file
    size = path.stat().st_size
    entry: dict[str, object] = {"type": "file", "path": file, "size": size, "oid": _etag(path)}
    if file.endswith(LARGE_FILES):
        entry |= {"oid": "0" * 40, "lfs": {"oid": _etag(path), "size": size, "pointerSize": 134}}
    return entry


@cache
def _etag(path: Path) -> str:
    """The file's Git object id, or its SHA-256 if it is one of the large files."""
    data = path.read_bytes()
    if path.name.endswith(LARGE_FILES):
        return hashlib.sha256(data).hexdigest()
    return hashlib.sha1(b"blob %d\0" % len(data) + data, usedforsecurity=False).hexdigest()


def _range(request: Request, size: int) -> tuple[int, int]:
    """First and last byte asked for, both included."""
    if "range" not in request.headers:
        return 0, size - 1
    match = re.fullmatch(r"bytes=(\d+)-(\d*)", request.headers["range"])
    if match is None or int(match[1]) >= size:
        raise HTTPException(416, headers={"Content-Range": f"bytes */{size}"})
    return int(match[1]), min(int(match[2] or size - 1), size - 1)


def _check_token(request: Request, name: str) -> None:
    """Raises the hub's refusals: 401 without a token, 403 with one that has no access."""
    authorization = request.headers.get("authorization")
    if authorization is None:
        text = f"Access to model {name} is restricted. You must have access to it and be authenticated to access it."
        raise _refusal(401, "GatedRepo", text)
    if authorization != f"Bearer {TOKEN}":
        text = f"Access to model {name} is restricted and you are not in the authorized list."
        raise _refusal(403, "GatedRepo", text)


def _refusal(status: int, code: str, message: str, headers: dict[str, str] | None = None) -> HTTPException:
    headers = {"X-Error-Code": code, "X-Error-Message": message, **(headers or {})}
    return HTTPException(status, message, headers)
