"""What OpenAI's Python SDK makes of each refusal, and whether it tries again."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import httpx
import httpx2
import openai
import pytest
from openai import AsyncOpenAI

from app.queue.queue import Queue
from app.settings import Settings
from tests.api.support import first_waiting, serving, working

pytestmark = pytest.mark.filterwarnings("ignore:The Sora API is scheduled:DeprecationWarning")

HEADERS = {"idempotency-key": "k"}


@asynccontextmanager
async def sdk(api: httpx.AsyncClient) -> AsyncIterator[tuple[AsyncOpenAI, list[str]]]:
    """The client, and the paths of what it sends."""
    sent: list[str] = []

    async def note(request: httpx2.Request) -> None:
        sent.append(request.url.path)

    async with (
        httpx2.AsyncClient(event_hooks={"request": [note]}) as http,
        AsyncOpenAI(base_url=f"{api.base_url}/v1", api_key="none", http_client=http, max_retries=2) as client,
    ):
        yield client, sent


async def test_each_refusal_is_its_exception_at_once(api: httpx.AsyncClient, queue: Queue) -> None:
    await queue.registry.announce("busy", ["shapes-flux"], 60)
    async with sdk(api) as (client, sent):
        with pytest.raises(openai.BadRequestError) as unknown:
            await client.images.generate(prompt="a", model="flux-99")
        assert (unknown.value.code, unknown.value.param) == ("model_not_found", "model")
        with pytest.raises(openai.BadRequestError) as bad:
            await client.images.generate(prompt="a", quality="hd")
        assert (bad.value.code, bad.value.param) == ("unsupported_parameter", "quality")
        assert bad.value.type == "invalid_request_error"
        with pytest.raises(openai.UnprocessableEntityError) as shape:
            await client.images.generate(prompt="a", extra_body={"promt": "b"})
        assert (shape.value.code, shape.value.param) == ("invalid_request", "promt")
        with pytest.raises(openai.NotFoundError):
            await client.videos.retrieve("job_unknown")
        assert len(sent) == 4
        assert bad.value.request_id


async def test_a_key_used_for_something_else_is_a_conflict_and_not_tried_again(api: httpx.AsyncClient) -> None:
    await api.post("/v1/jobs", json={"prompt": "a"}, headers=HEADERS)
    async with sdk(api) as (client, sent):
        with pytest.raises(openai.ConflictError) as conflict:
            await client.post(
                "/jobs", body={"prompt": "b"}, options={"headers": {"idempotency-key": "k"}}, cast_to=object
            )
        assert (conflict.value.code, len(sent)) == ("idempotency_conflict", 1)


async def test_a_full_queue_is_tried_again_when_it_says(
    settings: Settings, queue: Queue, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("app.queue.stats.RETRY_UNKNOWN_S", 1)
    async with serving(settings.model_copy(update={"queue_limit": 1})) as api, sdk(api) as (client, sent):
        await api.post("/v1/jobs", json={"prompt": "a"})
        with pytest.raises(openai.RateLimitError) as full:
            await client.with_options(max_retries=0).post("/jobs", body={"prompt": "b"}, cast_to=object)
        assert (full.value.code, full.value.response.headers["retry-after"]) == ("queue_full", "1")

        async def make_room(response: httpx2.Response) -> None:
            if response.status_code == 429:
                await queue.cancel((await first_waiting(queue)).id)

        client._client.event_hooks["response"] = [make_room]
        job = await client.post("/jobs", body={"prompt": "b"}, cast_to=dict[str, object])
        assert (job["status"], len(sent)) == ("queued", 3)


async def test_without_a_worker_it_is_told_so_after_its_retries(api: httpx.AsyncClient) -> None:
    async with sdk(api) as (client, sent):
        with pytest.raises(openai.InternalServerError) as none:
            await client.with_options(max_retries=0).images.generate(prompt="a")
        assert (none.value.status_code, none.value.code, len(sent)) == (503, "no_worker", 1)


async def test_a_failure_in_a_stream_is_raised_where_it_is_read(
    api: httpx.AsyncClient, queue: Queue, settings: Settings
) -> None:
    async with sdk(api) as (client, _), working(queue, settings):
        stream = await client.images.generate(prompt="fail", stream=True)
        with pytest.raises(openai.APIError, match="ran out of memory") as failed:
            async for _event in stream:
                pass
        assert failed.value.code == "out_of_memory"
