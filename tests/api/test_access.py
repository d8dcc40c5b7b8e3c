"""The matrix of keys, other tenants' jobs and every route there is."""

from __future__ import annotations

import itertools
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import pytest

from app.api.middleware.auth import needed
from app.api.sdapi.routes import NOTHING, REFRESHES
from app.api.server import create_app
from app.artifacts import Artifacts
from app.auth import Scope
from app.auth.api_key import digest
from app.auth.keys_file import add_key
from app.jobs import Job
from app.queue.queue import Queue
from app.settings import Settings
from tests import catalogs
from tests.api.keyed import ADMIN, GENERATE, IDS, KEYS, READ, by, job_of, keyed
from tests.api.support import FakeWorker, serving
from tests.claiming import claim
from tests.limits import HANG_S
from tests.tiers import one_of_each

#: Every route: the scope it needs. A route with a parameter of JOB_PARAMETERS is tried with another tenant's job.
ROUTES: dict[tuple[str, str], Scope | None] = {
    ("GET", "/"): None,
    ("GET", "/playground/{version}/{path}"): None,
    ("GET", "/openapi.json"): None,
    ("GET", "/docs"): None,
    ("GET", "/healthz"): None,
    ("GET", "/readyz"): None,
    ("GET", "/metrics"): ADMIN,
    ("GET", "/metrics/workers"): ADMIN,
    ("GET", "/v1/models"): READ,
    ("GET", "/v1/models/{model_id}"): READ,
    ("GET", "/v1/queue"): READ,
    ("POST", "/v1/jobs"): GENERATE,
    ("GET", "/v1/jobs"): READ,
    ("DELETE", "/v1/jobs/{job_id}"): GENERATE,
    ("GET", "/v1/jobs/{job_id}"): READ,
    ("GET", "/v1/jobs/{job_id}/result"): READ,
    ("GET", "/v1/jobs/{job_id}/events"): READ,
    ("POST", "/v1/jobs/{job_id}/cancel"): GENERATE,
    ("POST", "/v1/images/generations"): GENERATE,
    ("POST", "/v1/images/edits"): GENERATE,
    ("POST", "/v1/videos"): GENERATE,
    ("POST", "/v1/videos/{video_id}/remix"): GENERATE,
    ("GET", "/v1/videos"): READ,
    ("DELETE", "/v1/videos/{video_id}"): GENERATE,
    ("GET", "/v1/videos/{video_id}"): READ,
    ("GET", "/v1/videos/{video_id}/content"): READ,
    ("POST", "/v1/files"): GENERATE,
    ("GET", "/v1/files"): READ,
    ("GET", "/v1/files/{file_id}"): READ,
    ("GET", "/v1/files/{file_id}/content"): READ,
    ("DELETE", "/v1/files/{file_id}"): GENERATE,
    ("GET", "/v1/loras"): READ,
    ("POST", "/v1/loras"): GENERATE,
    ("GET", "/v1/loras/{lora_id}"): READ,
    ("DELETE", "/v1/loras/{lora_id}"): GENERATE,
    ("GET", "/v1/artifacts/{name}"): None,
    ("GET", "/internal/ping"): READ,
    **{
        ("GET", f"/sdapi/v1/{name}"): READ
        for name in ("loras", "options", "progress", "samplers", "schedulers", "sd-models", "upscalers", *NOTHING)
    },
    **{
        ("POST", f"/sdapi/v1/{name}"): GENERATE
        for name in ("img2img", "interrupt", "options", "png-info", "txt2img", *REFRESHES)
    },
}
JOB_PARAMETERS = ("{job_id}", "{video_id}")
LISTS = ("/v1/jobs", "/v1/videos")
ONE_JOB = [route for route in ROUTES if any(name in route[1] for name in JOB_PARAMETERS)]
BODY = {"prompt": "a shape", "seed": 7}


def walk(routes: Any) -> Iterator[tuple[str, str]]:
    for route in routes:
        if (included := getattr(route, "original_router", None)) is not None:
            yield from walk(included.routes)
            continue
        path = route.path.replace(":path}", "}")
        yield from ((method, path) for method in getattr(route, "methods", None) or ("GET",))


def test_the_matrix_knows_every_route(settings: Settings) -> None:
    app = create_app(settings)
    found = {each for each in walk(app.routes) if each[0] != "HEAD"}
    found = {each for each in found if not each[1].startswith("/docs/")}
    assert found == set(ROUTES)
    assert {path for _, path in found} >= set(app.openapi()["paths"])


@pytest.mark.parametrize(("route", "scope"), ROUTES.items())
def test_the_scope_of_each_route(route: tuple[str, str], scope: Scope | None) -> None:
    assert needed(*route) == scope


@pytest.mark.parametrize(
    "path", ["/v1/nothing", "//", "/healthz/", "//healthz", "/healthz/../v1/jobs", "/docs/../v1/jobs/x", "/%2e%2e/"]
)
def test_a_path_that_is_not_named_needs_a_key(path: str) -> None:
    assert path.startswith("/docs/") or needed("GET", path) is Scope.READ
    assert path.startswith("/docs/") or needed("TRACE", path) is Scope.GENERATE


@pytest.fixture
async def api(settings: Settings) -> AsyncIterator[httpx.AsyncClient]:
    async with serving(keyed(settings)) as client:
        yield client


def tried(route: tuple[str, str], job_id: str) -> dict[str, Any]:
    """The request: of this job where the route has one."""
    method, path = route
    for name in JOB_PARAMETERS:
        path = path.replace(name, job_id)
    return {
        "method": method,
        "url": path.replace("{model_id}", "shapes-flux"),
        "json": BODY if method == "POST" and not path.endswith("/cancel") else None,
    }


@pytest.mark.parametrize("route", one_of_each(6, ROUTES))
async def test_every_route_by_every_key(api: httpx.AsyncClient, route: tuple[str, str]) -> None:
    scope = ROUTES[route]
    for key in KEYS:
        answer = await api.request(**tried(route, "job_none"), headers=by(key.id))
        refused = answer.status_code == 403 and answer.json()["error"]["code"] == "insufficient_scope"
        assert refused == (scope is not None and scope not in key.scopes), (key.id, answer.text)
    for headers in ({}, {"authorization": "Bearer wrong"}):
        answer = await api.request(**tried(route, "job_none"), headers=headers)
        assert (answer.status_code == 401) == (scope is not None), answer.text
        if scope is not None:
            basic = route[1].startswith(("/sdapi/", "/internal/"))
            assert answer.headers["www-authenticate"].startswith("Basic " if basic else "Bearer")
            assert answer.json()["error"]["code"] == ("invalid_api_key" if headers else "missing_api_key")


@pytest.mark.parametrize(
    "said",
    [
        "", "Bearer", "Basic YWxpY2U6", "alice", "Bearer alice bob", "Bearer alice, Bearer bob",
        "Bearer ALICE", "Bearer Bearer alice", f"Bearer {digest('alice')}", "Bearer " + "a" * 5000,
        "Bearer älice", "Bearer 'alice'", "Bearer alice;",
    ],
)  # fmt: skip
async def test_what_is_no_key(api: httpx.AsyncClient, said: str) -> None:
    answer = await api.get("/v1/models", headers={b"authorization": said.encode("latin-1")})
    assert (answer.status_code, answer.json()["error"]["code"]) == (401, "invalid_api_key")


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ([("api-key", "alice")], 200),
        ([("api-key", "alice"), ("authorization", "Bearer alice")], 200),
        ([("api-key", "alice"), ("authorization", "Bearer bob")], 401),
        ([("api-key", "alice"), ("authorization", "Basic YWxpY2U6")], 401),
        ([("api-key", "alice"), ("api-key", "alice")], 401),
        ([("api-key", "wrong")], 401),
        ([("api-key", "")], 401),
    ],
)
async def test_a_key_by_azures_header(api: httpx.AsyncClient, headers: list[tuple[str, str]], status: int) -> None:
    assert (await api.get("/v1/models", headers=headers)).status_code == status


async def test_two_authorizations_are_none(api: httpx.AsyncClient) -> None:
    answer = await api.get("/v1/models", headers=[("authorization", "Bearer alice"), ("authorization", "Bearer bob")])
    assert answer.status_code == 401


@pytest.mark.parametrize("route", ONE_JOB)
@pytest.mark.parametrize("done", [False, True])
async def test_another_tenants_job_is_like_none(
    api: httpx.AsyncClient,
    queue: Queue,
    settings: Settings,
    make_job: Callable[..., Job],
    route: tuple[str, str],
    done: bool,
) -> None:
    video = {"num_frames": 9, "fps": 8, "output_format": "mp4"} if "{video_id}" in route[1] else {}
    job_id, unknown = "job_" + "1" * 32, "job_" + "0" * 32
    await queue.submit(replace(make_job(job_id, **video), tenant="a"))
    if done:
        [claimed] = await claim(queue, "fake-1", "shapes-flux", 1, 1)
        await FakeWorker(queue, Artifacts.open(settings)).finish(claimed)
    for stranger in ("bob", "operator"):
        theirs = await api.request(**tried(route, job_id), headers=by(stranger))
        none = await api.request(**tried(route, unknown), headers=by(stranger))
        assert theirs.status_code == none.status_code == 404
        assert theirs.text.replace(job_id, unknown) == none.text
        assert set(theirs.headers) == set(none.headers)
    before = await queue.get(job_id)
    assert before is not None
    assert before.status == ("completed" if done else "queued")
    owner = by("alice-reads" if route[0] == "GET" else "alice-sends")
    async with api.stream(**tried(route, job_id), headers=owner) as own:  # events would go on
        assert own.status_code in (200, 204, 400, 409)  # 400 of a remix by a model that makes images


async def test_no_list_shows_another_tenants_job(
    settings: Settings, queue: Queue, make_job: Callable[..., Job], video_entry: Path
) -> None:
    job_id, unknown = "job_" + "1" * 32, "job_" + "0" * 32
    video = make_job(job_id, model=catalogs.MODEL, num_frames=9, fps=8, output_format="mp4")
    await queue.submit(replace(video, tenant="a"))
    async with serving(keyed(settings.model_copy(update={"catalog": video_entry}))) as api:
        for path in [path for method, path in ROUTES if method == "GET" and "{" not in path]:
            assert (job_id in (await api.get(path, headers=by("alice-reads"))).text) == (path in LISTS)
            for stranger in ("bob", "operator"):
                assert job_id not in (await api.get(path, headers=by(stranger))).text
        for path, stranger in itertools.product(LISTS, ("bob", "operator")):
            theirs = await api.get(path, headers=by(stranger), params={"after": job_id})
            none = await api.get(path, headers=by(stranger), params={"after": unknown})
            assert theirs.status_code == none.status_code
            assert theirs.text.replace(job_id, unknown) == none.text


async def test_idempotency_keys_are_a_tenants_own(api: httpx.AsyncClient) -> None:
    jobs = {
        who: job_of(await api.post("/v1/jobs", json=BODY, headers={**by(who), "idempotency-key": "1"}))
        for who in ("alice", "bob", "alice-sends")
    }
    assert jobs["alice"] == jobs["alice-sends"] != jobs["bob"]
    # Neither does a tenant's name run over into the key.
    other = await api.post("/v1/jobs", json={**BODY, "seed": 8}, headers={**by("bob"), "idempotency-key": "1"})
    assert other.status_code == 409


async def test_a_refusal_does_not_wait_for_the_body(api: httpx.AsyncClient) -> None:
    async def endless() -> AsyncIterator[bytes]:
        for _ in itertools.repeat(None, 200):
            yield b"x" * 65536

    answer = await api.post("/v1/jobs", content=endless(), headers={"content-type": "application/json"})
    assert (answer.status_code, answer.headers["connection"]) == (401, "close")


async def test_a_key_that_is_struck_out_no_longer_opens(settings: Settings, tmp_path: Path) -> None:
    path = tmp_path / "keys.toml"
    path.touch()
    async with serving(settings.model_copy(update={"api_keys_file": path})) as api:
        assert (await api.get("/v1/models", headers=by("alice"))).status_code == 401
        add_key(path, KEYS[0])
        assert (await api.get("/v1/models", headers=by("alice"))).status_code == 200
        path.write_text("")
        assert (await api.get("/v1/models", headers=by("alice"))).status_code == 401


async def test_without_keys_a_header_is_not_looked_at(settings: Settings) -> None:
    async with serving(settings) as api:
        for headers in ({}, {"authorization": "Bearer anything"}, {"authorization": "Basic x"}):
            assert (await api.get("/metrics", headers=headers)).status_code == 200


async def test_no_key_is_logged_or_answered(
    api: httpx.AsyncClient, worker: FakeWorker, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("DEBUG")
    said = ""
    for route, key_id in itertools.product(ROUTES, [*IDS, "wrong-secret"]):
        answer = await api.request(**tried(route, "job_none"), headers=by(key_id))
        said += answer.text if key_id == "wrong-secret" else ""
    assert "wrong-secret" not in said + caplog.text
    assert not any(f"Bearer {key_id}" in caplog.text for key_id in IDS)


def test_the_keys_are_compared_without_loading_torch() -> None:
    code = "import app.auth.keyring, app.cli.keys, sys; sys.exit('torch' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True, timeout=HANG_S)
