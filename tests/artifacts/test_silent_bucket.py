"""Processes that are told to stop while a bucket does not answer: they do not wait for it."""

from __future__ import annotations

import asyncio
import json
import os
import re
import sys
from pathlib import Path

import httpx
import pytest

from app.artifacts import Artifacts, artifact_name
from app.artifacts.signed_urls import Links
from app.settings import Settings
from tests import s3

pytestmark = pytest.mark.slow  # starts an API and a worker

#: Less than the bucket is given to answer, and many times what a process needs to end.
END_S = 45


async def test_an_api_ends(tmp_path: Path) -> None:
    settings = Settings(data_dir=tmp_path)
    link = Links.open(settings, Artifacts.open(settings)).to(artifact_name("job", 0, "png")).url
    with s3.silent() as (server, bucket):
        environment = os.environ | {
            "NAG_DATA_DIR": str(tmp_path), "NAG_REDIS_URL": "redis://127.0.0.1:9", "NAG_PORT": "0", "NAG_DRAIN_S": "0",
            "NAG_ARTIFACTS_URL": bucket.url, "NAG_ARTIFACTS_OPTIONS": json.dumps(dict(bucket.options)),
        }  # fmt: skip
        api = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "app.cli", "api", env=environment, stdout=asyncio.subprocess.PIPE
        )
        try:
            assert api.stdout is not None
            address = re.search(r"http://\S+", (await api.stdout.readline()).decode())
            assert address is not None
            async with httpx.AsyncClient(trust_env=False, timeout=120) as http:
                request = asyncio.create_task(http.get(address[0] + link))
                connection, _ = await asyncio.to_thread(server.accept)
                api.terminate()
                with connection:
                    assert await asyncio.wait_for(api.wait(), END_S) == 0
                await asyncio.wait([request])
        finally:
            if api.returncode is None:
                api.kill()
            await api.wait()


async def test_a_worker_ends(tmp_path: Path, valkey_url: str) -> None:
    with s3.silent() as (server, bucket):
        environment = os.environ | {
            "NAG_DATA_DIR": str(tmp_path), "NAG_REDIS_URL": valkey_url, "NAG_DEVICE": "cpu",
            "NAG_ARTIFACTS_URL": bucket.url, "NAG_ARTIFACTS_OPTIONS": json.dumps(dict(bucket.options)),
        }  # fmt: skip
        worker = await asyncio.create_subprocess_exec(sys.executable, "-m", "app.cli", "worker", env=environment)
        try:
            connection, _ = await asyncio.to_thread(server.accept)  # it sweeps
            worker.terminate()
            with connection:
                assert await asyncio.wait_for(worker.wait(), END_S) == 0
        finally:
            if worker.returncode is None:
                worker.kill()
            await worker.wait()
