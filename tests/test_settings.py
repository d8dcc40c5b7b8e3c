from pathlib import Path

import pytest
from pydantic import ValidationError

from app.settings import Settings


@pytest.mark.parametrize(
    ("host", "expected"),
    [("0.0.0.0", "http://127.0.0.1:8000"), ("::", "http://[::1]:8000"), ("::1", "http://[::1]:8000")],
)
def test_where_a_server_is_reached(host: str, expected: str) -> None:
    assert Settings(host=host).url == expected


def test_a_value_that_does_not_fit_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NAG_PORT", "abc")
    with pytest.raises(ValidationError, match="port"):
        Settings()


def test_the_home_sign_is_understood(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/somewhere")
    assert Settings(data_dir=Path("~/data")).data_folder == Path("/somewhere/data")


def test_settings_cannot_be_changed() -> None:
    with pytest.raises(ValidationError, match="frozen"):
        Settings().port = 1


@pytest.mark.parametrize(
    ("written", "read"), [("a", ("a",)), ("a, b,c ", ("a", "b", "c")), ("", None), (",", None)]
)  # fmt: skip
def test_models_are_named_with_commas(written: str, read: object, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NAG_MODELS", written)
    assert Settings().models == read
