"""NAG_REDIS_URL: every form, and one line without the secret for whatever is none."""

from __future__ import annotations

from pathlib import Path

import pytest

from app.cli import main
from app.queue import embedded
from app.queue.address import Address, parse_address
from app.settings import Settings


@pytest.mark.parametrize(
    ("url", "address"),
    [
        ("redis://host", Address((("host", 6379),))),
        ("valkey://host:1/2", Address((("host", 1),), options={"db": 2})),
        ("redis://host/1?db=3", Address((("host", 6379),), options={"db": 3})),
        (
            "redis://user:p%2Fa%3Fs%40s@[::1]:7",
            Address((("::1", 7),), options={"username": "user", "password": "p/a?s@s"}),
        ),
        ("rediss://:p:w@h", Address((("h", 6379),), is_tls=True, options={"password": "p:w"})),
        (
            "valkeys://h?ssl_check_hostname=false&socket_timeout=1.5",
            Address((("h", 6379),), is_tls=True, options={"ssl_check_hostname": False, "socket_timeout": 1.5}),
        ),
        ("unix:///a%20folder/x.sock?db=2", Address(path="/a folder/x.sock", options={"db": 2})),
        ("unix:///x.sock?password=a@b", Address(path="/x.sock", options={"password": "a@b"})),
        (
            "sentinel://:pw@a,b:7/primary/4?sentinel_password=own",
            Address(
                (("a", 26379), ("b", 7)),
                service="primary",
                options={"password": "pw", "db": 4},
                sentinel_options={"password": "own"},
            ),
        ),
        ("sentinels://a/primary", Address((("a", 26379),), service="primary", is_tls=True)),
    ],
)
def test_every_form_is_read(url: str, address: Address) -> None:
    assert parse_address(url) == address
    assert Settings(redis_url=url).redis_url == url


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("redis://:hid/den@host:6379/0", "write / ? # @ in the user and the password as %2F %3F %23 %40"),
        ("redis://:hid?den@host:6379/0", "write / ? # @"),
        ("redis://:hid#den@host", "write / ? # @"),
        ("host:6379", "must be redis://"),
        (":hidden@host:6379", "must be redis://"),
        ("http://:hidden@host", "must be redis://"),
        ("redis://:hidden@[::1", "must be redis://"),
        ("redis://:hidden@", "must name a host"),
        ("redis://:hidden@a,b", "must be redis://"),
        ("redis://:hidden@a/1/2", "must be redis://"),
        ("redis://:hidden@host:port", "the port must be a number from 0 to 65535"),
        ("redis://:hidden@host/name", "the database: must be a valid integer"),
        ("redis://:hidden@host?foo=bar", "unknown option 'foo'; redis:// takes client_name, db, "),
        ("redis://:hidden@host?ssl_ca_certs=x", "unknown option 'ssl_ca_certs'"),
        ("redis://:hidden@host?decode_responses=no", "unknown option 'decode_responses'"),
        ("redis://:hidden@host?socket_timeout=hidden", "the option socket_timeout: must be a valid number"),
        ("sentinel://:hidden@host", "sentinel:// must name the service: sentinel://HOST"),
        ("unix://", "must be redis://"),
    ],
)
def test_an_address_that_is_none_is_one_line_without_the_secret(
    url: str, message: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("NAG_REDIS_URL", url)
    assert main(["api"]) == 2
    [line] = capsys.readouterr().err.splitlines()
    assert line.startswith(f"nag-server: NAG_REDIS_URL=…: {message}")
    assert "hid" not in line
    with pytest.raises(ValueError, match="redis_url") as caught:
        Settings()
    assert "hid" not in str(caught.value).replace("hide", "")


def test_a_password_is_shown_nowhere() -> None:
    url = "sentinel://:hidden@host/primary?sentinel_password=hidden"
    assert "hidden" not in repr(parse_address(url)) + repr(Settings(redis_url=url))


def test_the_embedded_servers_own_address_is_read_whatever_the_folder_is_called() -> None:
    settings = Settings(data_dir=Path("/tmp/50% of a #1 folder?"))
    assert parse_address(embedded.url(settings)).path == str(embedded.socket_path(settings.data_folder))
