from __future__ import annotations

from pathlib import Path

import pytest

from app.auth.keyring import Keyring
from app.cli import main
from app.settings import Settings


def test_a_new_key_is_printed_once_and_its_hash_stored(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "keys.toml"
    monkeypatch.setenv("NAG_API_KEYS_FILE", str(path))
    assert main(["keys", "new", "phone", "--tenant", "acme", "--scopes", "read,admin", "--pending-jobs", "3"]) == 0
    said = capsys.readouterr()
    secret = said.out.strip()
    assert secret.startswith("nag_")
    assert secret not in said.err + path.read_text()
    key = Keyring(Settings()).find(secret)
    assert key is not None
    assert (key.id, key.tenant, sorted(key.scopes), key.pending_jobs) == ("phone", "acme", ["admin", "read"], 3)

    assert main(["keys", "list"]) == 0
    assert capsys.readouterr().out == "phone\tacme\tadmin,read\tpending_jobs 3\n"
    assert main(["keys", "new", "phone"]) == 1
    assert "has a key 'phone' already" in capsys.readouterr().err


def test_a_key_may_be_lenient(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("NAG_API_KEYS_FILE", str(tmp_path / "keys.toml"))
    assert main(["keys", "new", "widget", "--lenient"]) == 0
    key = Keyring(Settings()).find(capsys.readouterr().out.strip())
    assert key is not None
    assert key.strict is False
    assert main(["keys", "list"]) == 0
    assert capsys.readouterr().out == "widget\twidget\tgenerate,read\tstrict false\n"


def test_without_a_file_the_table_is_shown_to_be_added(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["keys", "new", "a"]) == 0
    said = capsys.readouterr()
    assert "[keys.a]\n" in said.err
    assert 'tenant = "a"' in said.err
    assert said.out.strip() not in said.err


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["a b"], "id: String should match"),
        (["a", "--tenant", "x\n"], "tenant: String should match"),
        (["a", "--scopes", "all"], "scopes: must be 'generate', 'read' or 'admin'"),
        (["a", "--pending-jobs", "0"], "pending_jobs: must be greater than or equal to 1"),
    ],
)
def test_a_key_that_cannot_be_made(arguments: list[str], said: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["keys", "new", *arguments]) == 1
    assert said in capsys.readouterr().err


@pytest.mark.parametrize("value", ["{", '[{"id": "a", "sha256": "nag_secret", "tenant": "a"}]', '["nag_secret"]'])
def test_a_wrong_setting_is_named_and_not_shown(
    value: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("NAG_API_KEYS", value)
    assert main(["models", "list"]) == 2
    said = capsys.readouterr().err
    assert said.startswith("nag-server: NAG_API_KEYS=…: ")
    assert "nag_secret" not in said
