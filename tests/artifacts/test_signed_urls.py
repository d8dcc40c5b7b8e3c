from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest

from app.artifacts import Artifacts, artifact_name
from app.artifacts.signed_urls import PATH, Link, Links
from app.errors import Forbidden, Gone
from app.settings import Settings

NAME = artifact_name("job_1", 0, "mp4")
OTHER = artifact_name("job_2", 0, "mp4")


def parts(link: Link) -> tuple[str, str, str]:
    split = urlsplit(link.url)
    query = {name: value for name, [value] in parse_qs(split.query).items()}
    return split.path.removeprefix(PATH), query["expires"], query["signature"]


def opened(folder: Path, **settings: Any) -> Links:
    read = Settings(data_dir=folder, **settings)
    return Links.open(read, Artifacts.open(read))


def test_a_link_is_honoured_until_it_expires(monkeypatch: pytest.MonkeyPatch) -> None:
    links = Links([b"secret"], lifetime_s=60)
    link = links.to(NAME)
    links.check(*parts(link))
    monkeypatch.setattr("time.time", lambda: link.expires_at)
    with pytest.raises(Gone):
        links.check(*parts(link))


def test_another_file_or_time_is_not_what_was_signed() -> None:
    links = Links([b"secret"], lifetime_s=60)
    name, expires, signature = parts(links.to(NAME))
    changed = [
        (OTHER, expires, signature), (name, str(int(expires) + 1), signature), (name, expires, signature[:-1]),
        (name, expires, ""), (name, "", ""), (name, "soon", signature), (name, f"0{expires}", signature),
        (name, expires, signature + "="), (f"{name}\n{expires[:3]}", expires[3:], signature), (name, expires, "ß"),
    ]  # fmt: skip
    for each in changed:
        with pytest.raises(Forbidden):
            links.check(*each)


def test_secrets_are_changed_in_turn(tmp_path: Path) -> None:
    old, both, new = (opened(tmp_path, url_secrets=each) for each in ("old", "new, old", "new"))
    both.check(*parts(old.to(NAME)))
    new.check(*parts(both.to(NAME)))
    for links, link in ((new, old.to(NAME)), (old, both.to(NAME))):
        with pytest.raises(Forbidden):
            links.check(*parts(link))


def test_processes_on_one_folder_share_a_secret_that_is_theirs_alone(tmp_path: Path) -> None:
    with ThreadPoolExecutor(8) as threads:
        several = list(threads.map(lambda _: opened(tmp_path / "a"), range(8)))
    for links in several:
        links.check(*parts(several[0].to(NAME)))
    assert [each.name for each in (tmp_path / "a").glob("url-secret*")] == ["url-secret"]
    assert (tmp_path / "a" / "url-secret").stat().st_mode & 0o077 == 0
    with pytest.raises(Forbidden):
        opened(tmp_path / "b").check(*parts(several[0].to(NAME)))


def test_links_given_soon_after_another_are_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    links, now = Links([b"secret"], lifetime_s=3600), 1_800_000_000.0
    given = []
    for second in range(0, 1800, 100):
        monkeypatch.setattr("time.time", lambda second=second: now + second)
        given.append(links.to(NAME))
        assert 0.75 * 3600 <= given[-1].expires_at - (now + second) <= 3600
    assert len({each.url for each in given}) == 2
