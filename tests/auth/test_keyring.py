from __future__ import annotations

import os
from pathlib import Path

import pytest

from app.auth import ApiKey, KeysError
from app.auth.api_key import digest
from app.auth.keyring import Keyring
from app.auth.keys_file import add_key
from app.settings import Settings


def key(name: str, secret: str | None = None) -> ApiKey:
    return ApiKey(id=name, tenant="t", sha256=digest(secret or name))


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "keys.toml"
    add_key(path, key("a"))
    return path


def names(ring: Keyring, *secrets: str) -> list[str | None]:
    return [found.id if (found := ring.find(each)) else None for each in secrets]


def test_a_key_is_found_by_its_secret_alone(path: Path) -> None:
    ring = Keyring(Settings(api_keys_file=path, api_keys=(key("b"),)))
    assert names(ring, "a", "b", "c", "", "ü", digest("a")) == ["a", "b", None, None, None, None]


def test_without_keys_nobody_is_asked_and_an_empty_file_asks_for_what_none_has(tmp_path: Path) -> None:
    assert not Keyring(Settings()).is_required
    (tmp_path / "none.toml").touch()
    assert Keyring(Settings(api_keys_file=tmp_path / "none.toml")).is_required


def test_the_file_is_read_again_when_it_changes(path: Path, caplog: pytest.LogCaptureFixture) -> None:
    ring = Keyring(Settings(api_keys_file=path))
    add_key(path, key("b"))
    assert names(ring, "a", "b") == ["a", "b"]
    written = path.read_text()
    path.write_text("[keys")
    assert names(ring, "a", "b") == ["a", "b"]
    assert caplog.text.count("keys_not_read") == 1
    path.unlink()
    assert names(ring, "a") == ["a"]
    path.write_text(written.partition("[keys.b]")[0])
    assert names(ring, "a", "b") == ["a", None]


def test_a_folder_of_links_is_followed(path: Path, tmp_path: Path) -> None:
    """As Kubernetes swaps a mounted secret."""
    (tmp_path / "keys").symlink_to(path)
    ring = Keyring(Settings(api_keys_file=tmp_path / "keys"))
    add_key(tmp_path / "new.toml", key("b"))
    (tmp_path / "link").symlink_to(tmp_path / "new.toml")
    os.replace(tmp_path / "link", tmp_path / "keys")  # noqa: PTH105
    assert names(ring, "a", "b") == [None, "b"]


def test_one_secret_or_id_twice_is_refused(path: Path) -> None:
    with pytest.raises(KeysError, match="same id: a"):
        Keyring(Settings(api_keys_file=path, api_keys=(key("a", "other"),)))
    with pytest.raises(KeysError, match=r"same sha256$"):
        Keyring(Settings(api_keys_file=path, api_keys=(key("b", "a"),)))


def test_a_file_that_is_not_there_ends_the_start(tmp_path: Path) -> None:
    with pytest.raises(KeysError, match="no such file"):
        Keyring(Settings(api_keys_file=tmp_path / "keys.toml"))
