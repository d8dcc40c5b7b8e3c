"""`nag-server dead`, as an operator calls it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest

from app.cli import main
from app.jobs import Job
from app.queue.queue import Queue
from app.settings import Settings
from tests.queue.support import lose

Make = Callable[..., Job]


@pytest.fixture
def letters(settings: Settings, make_job: Make, monkeypatch: pytest.MonkeyPatch) -> Settings:
    """Two dead letters, b the newer, in the queue that the command finds."""

    async def make() -> None:
        queue = Queue.connect(settings.model_copy(update={"lease_s": 0.02, "max_attempts": 1}))
        for name in "ab":
            await queue.submit(make_job(name, prompt="topsecret"))
            await lose(queue, name, 1)
        await queue.close()

    asyncio.run(make())
    monkeypatch.setenv("NAG_REDIS_URL", str(settings.redis_url))
    return settings


async def _waiting(settings: Settings) -> int:
    queue = Queue.connect(settings)
    try:
        return await queue.depth("shapes-flux")
    finally:
        await queue.close()


def test_they_are_listed_newest_first_a_line_each(letters: Settings, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["dead", "list"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split("\t")[:2] for line in lines] == [["b", "shapes-flux"], ["a", "shapes-flux"]]
    assert all("worker_lost: lost by 1 workers" in line and "topsecret" not in line for line in lines)


def test_replay_queues_again_and_says_what_it_could_not(letters: Settings, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["dead", "replay", "a", "unknown"]) == 1
    said = capsys.readouterr()
    assert (said.out, said.err) == ("a\n", "nag-server: unknown is no dead letter\n")
    assert asyncio.run(_waiting(letters)) == 1
    assert main(["dead", "replay", "b"]) == 0
    assert asyncio.run(_waiting(letters)) == 2


def test_drop_strikes_off(letters: Settings, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["dead", "drop", "a", "b"]) == 0
    assert main(["dead", "list"]) == 0
    assert capsys.readouterr().out == "a\nb\n"
    assert asyncio.run(_waiting(letters)) == 0


def test_without_a_queue_it_is_one_line(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("NAG_REDIS_URL", "redis://127.0.0.1:1")
    assert main(["dead", "list"]) == 1
    [line] = capsys.readouterr().err.splitlines()
    assert line.startswith("nag-server: the queue cannot be reached: ")
