"""What the service needs of its Redis is checked at the start, and what it refuses later is told by its cause."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from redis.exceptions import RedisError

from app.cli import main
from app.errors import Unavailable
from app.jobs import Job, JobStatus
from app.queue.connection import CHANNEL_COMMANDS, KEY_COMMANDS, OTHER_COMMANDS, RequirementError, translate_redis_error
from app.queue.queue import Queue
from app.settings import Settings
from tests.claiming import claim
from tests.queue.servers import Server, valkey
from tests.queue.support import MODEL, RESULT, look, make_every_transition

Make = Callable[..., Job]
Connect = Callable[..., Queue]
MEMORY_BYTES = 4_000_000


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with valkey(tmp_path_factory.mktemp("server")) as running:
        yield running


@pytest.fixture
def server(shared: Server) -> Iterator[Server]:
    """A server that holds nothing and knows the default user alone."""
    shared.admin.flushall()
    yield shared
    shared.admin.config_set("maxmemory-policy", "noeviction")
    shared.admin.config_set("maxmemory", "0")
    shared.admin.config_set("min-replicas-to-write", "0")
    shared.admin.acl_deluser("nag")


def as_user(server: Server, *rights: str) -> str:
    """The server's address for a user with these rights, and no other."""
    server.admin.execute_command("ACL SETUSER", "nag", "reset", "on", ">hidden", *rights)
    return server.url.replace("//", "//nag:hidden@")


def settings_for(settings: Settings, url: str) -> Settings:
    return settings.model_copy(update={"redis_url": url})


@pytest.mark.parametrize("missing", ["info", "publish", "subscribe", "hset", "lindex", "evalsha"])
async def test_a_missing_right_is_named(server: Server, settings: Settings, missing: str) -> None:
    url = as_user(server, "~{nag}:*", "&{nag}:*", "+@all", f"-{missing}")
    with pytest.raises(RequirementError, match=rf"(?i)\b{missing}\b") as caught:
        await Queue.check(settings_for(settings, url))
    assert "hidden" not in str(caught.value)


@pytest.mark.parametrize("patterns", [("~other:*", "&{nag}:*"), ("~{nag}:*", "&other:*")])
async def test_a_right_to_other_names_is_none(server: Server, settings: Settings, patterns: tuple[str, str]) -> None:
    url = as_user(server, *patterns, "+@all")
    with pytest.raises(RequirementError, match=r"keys ~\{nag\}:\* and channels &\{nag\}:\*"):
        await Queue.check(settings_for(settings, url))


async def test_the_rights_that_are_checked_are_all_that_is_needed(
    server: Server, settings: Settings, make_job: Make, connect: Connect
) -> None:
    queue = connect(settings)
    names = {*queue._scripts.commands, *KEY_COMMANDS, *CHANNEL_COMMANDS, *OTHER_COMMANDS}
    granted = [f"+{name.lower().replace(' ', '|')}" for name in sorted(names)]
    url = as_user(server, "~{nag}:*", "&{nag}:*", *granted, "+evalsha", "+script|load", "+hello", "+client")
    await Queue.check(settings_for(settings, url))
    await make_every_transition(url, settings, make_job, clock=connect(settings, server.url))


def test_every_command_ends_with_one_line(
    server: Server, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    monkeypatch.setenv("NAG_DATA_DIR", str(tmp_path))
    monkeypatch.setenv("NAG_PORT", "0")
    for url, message in (
        (as_user(server, "~{nag}:*", "&{nag}:*", "+@all", "-publish", "-info"), "lacks the rights to INFO, PUBLISH"),
        (server.url.replace("//", "//nag:wrong@"), "Redis refuses this user"),
    ):
        monkeypatch.setenv("NAG_REDIS_URL", url)
        for command in ("api", "worker", "up"):
            assert main([command]) == 1
            [line] = capsys.readouterr().err.splitlines()
            assert line.startswith("nag-server: ")
            assert message in line


async def test_a_server_that_is_away_is_waited_for(settings: Settings) -> None:
    await Queue.check(settings_for(settings, "redis://127.0.0.1:1"))


async def test_eviction_is_warned_of_and_measured(
    server: Server, settings: Settings, caplog: pytest.LogCaptureFixture, connect: Connect
) -> None:
    queue = connect(settings, server.url)
    await Queue.check(settings_for(settings, server.url))
    assert "redis_may_evict" not in caplog.text
    assert not (await queue.stats()).redis_may_evict
    server.admin.config_set("maxmemory-policy", "allkeys-lru")
    await Queue.check(settings_for(settings, server.url))
    assert "redis_may_evict policy=allkeys-lru" in caplog.text
    assert (await queue.stats()).redis_may_evict


def fill(server: Server) -> None:
    """Let the server have less memory than it uses."""
    server.admin.config_set("maxmemory", "100000")


async def test_at_its_maxmemory_redis_takes_no_job_but_every_end(
    server: Server, settings: Settings, make_job: Make, connect: Connect
) -> None:
    queue = connect(settings, server.url)
    for name in "abcd":
        await queue.submit(make_job(name))
    await claim(queue, "w", MODEL, 2, 0)
    fill(server)
    with pytest.raises(RedisError) as caught:
        await queue.submit(make_job("more"))
    refusal = translate_redis_error(caught.value)
    assert (refusal.error_code, refusal.retry_after_s) == ("queue_refused", 10)
    assert "maxmemory" in refusal.message
    assert await queue.heartbeat("w", {"a": 1, "b": 1}) == []
    assert await queue.finish("w", "a", RESULT)
    await queue.release("w", ["b"])
    assert [job.id for job in await claim(queue, "w", MODEL, 1, 0)] == ["b"]
    await queue.cancel("c")
    assert await queue.delete("d") is not None
    await queue.registry.announce("w", [MODEL], 30)
    assert (await look(queue, "a")).status is JobStatus.COMPLETED


@pytest.mark.parametrize(
    ("option", "value", "message"),
    [("min-replicas-to-write", "1", "too few replicas"), ("maxmemory", "100000", "maxmemory")],
)
async def test_a_refusal_says_its_cause(
    server: Server, settings: Settings, make_job: Make, option: str, value: str, message: str, connect: Connect
) -> None:
    queue = connect(settings, server.url)
    server.admin.config_set(option, value)
    with pytest.raises(RedisError) as caught:
        await queue.submit(make_job("a"))
    refusal = translate_redis_error(caught.value)
    assert isinstance(refusal, Unavailable)
    assert refusal.error_code == "queue_refused"
    assert message in refusal.message
