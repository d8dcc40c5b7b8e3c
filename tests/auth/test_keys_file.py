from __future__ import annotations

import stat
from pathlib import Path

import pytest

from app.auth import ApiKey, KeysError, Scope
from app.auth.api_key import digest, new_secret
from app.auth.keys_file import add_key, read_keys

HASH = digest("a secret")


def test_what_is_added_is_read(tmp_path: Path) -> None:
    path = tmp_path / "keys.toml"
    path.write_text("# ours\n")
    path.chmod(0o644)
    first = ApiKey(id="a", tenant="acme", sha256=HASH, scopes=frozenset(Scope), requests_per_minute=60, pending_jobs=2)
    second = ApiKey(id="b-2", tenant="acme", sha256=digest("b"), strict=False)
    add_key(path, first)
    add_key(path, second)
    assert read_keys(path) == (first, second)
    assert path.read_text().startswith("# ours\n")
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    with pytest.raises(KeysError, match="has a key 'a' already"):
        add_key(path, first)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[keys", "not TOML"),
        ("[other]", "nothing else"),
        ("keys = 1", "nothing else"),
        ("[keys]\na = 1", "key 'a': must be a table"),
        (f'[keys.a]\nsha256 = "{HASH}"', "key 'a': tenant: Field required"),
        (f'[keys.a]\ntenant = "t"\nsha256 = "{HASH}"\nlimit = 1', "key 'a': limit: Extra inputs"),
        (f'[keys.a]\ntenant = "t"\nsha256 = "{HASH}"\nscopes = ["all"]', "key 'a': scopes"),
        (f'[keys.a]\ntenant = "t"\nsha256 = "{HASH}"\npending_jobs = 0', "key 'a': pending_jobs"),
        (f'[keys."a\\n"]\ntenant = "t"\nsha256 = "{HASH}"', "id"),
        ('[keys.a]\ntenant = "t"\nsha256 = "nag_a-key-in-place-of-its-hash"', "key 'a': sha256"),
    ],
)
def test_a_file_that_cannot_be_used_says_where_and_quotes_nothing(tmp_path: Path, text: str, said: str) -> None:
    path = tmp_path / "keys.toml"
    path.write_text(text)
    with pytest.raises(KeysError, match=said) as raised:
        read_keys(path)
    assert "nag_a" not in str(raised.value)
    assert "\n" not in str(raised.value)


def test_secrets_are_long_and_differ() -> None:
    made = {new_secret() for _ in range(50)}
    assert len(made) == 50
    assert all(len(each) == len("nag_") + 43 for each in made)
