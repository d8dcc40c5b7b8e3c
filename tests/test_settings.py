from pathlib import Path

import pytest
from pydantic import ValidationError

from app.cli import main
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


def test_a_setting_may_be_a_file_and_the_environment_goes_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "nag_redis_url").write_text("redis://:secret@there:1\n")
    (tmp_path / "nag_port").write_text("81")
    (tmp_path / "other").write_text("x")
    monkeypatch.setenv("NAG_SECRETS_DIR", str(tmp_path))
    monkeypatch.setenv("NAG_PORT", "82")
    settings = Settings()
    assert (settings.redis_url, settings.port) == ("redis://:secret@there:1", 82)


def test_a_folder_of_settings_that_is_not_there_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NAG_SECRETS_DIR", str(tmp_path / "none"))
    with pytest.raises(ValidationError, match="secrets_dir"):
        Settings()


def test_secrets_are_handed_on_and_shown_to_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NAG_ARTIFACTS_URL", "s3://bucket/prefix")
    monkeypatch.setenv(
        "NAG_ARTIFACTS_OPTIONS", '{"secret_access_key": "hidden, one", "virtual_hosted_style_request": 1}'
    )
    monkeypatch.setenv("NAG_URL_SECRETS", "hidden-new, hidden-old")
    settings = Settings()
    assert settings.artifacts_options is not None
    assert settings.artifacts_options["secret_access_key"].get_secret_value() == "hidden, one"
    assert [each.get_secret_value() for each in settings.url_secrets or ()] == ["hidden-new", "hidden-old"]
    assert "hidden" not in repr(settings)
    for name, value in settings.as_environment().items():
        monkeypatch.setenv(name, value)
    assert Settings() == settings


def test_another_process_reads_the_same() -> None:
    given = Settings(models="a,b", warm="none", drain_s=2.5).as_environment()  # type: ignore[arg-type]
    assert (given["NAG_MODELS"], given["NAG_WARM"], given["NAG_DRAIN_S"]) == ("a,b", "none", "2.5")
    assert "NAG_REDIS_URL" not in given


@pytest.mark.parametrize("value", ["{", "[1]", '"hidden"'])
def test_a_secret_that_does_not_fit_is_not_shown(
    value: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("NAG_ARTIFACTS_OPTIONS", value)
    assert main(["api"]) == 2
    said = capsys.readouterr().err
    assert said.startswith("nag-server: NAG_ARTIFACTS_OPTIONS=…: ")
    assert "hidden" not in said


@pytest.mark.parametrize("url", ["/a/folder", "http://bucket", "memory://", "s4://bucket"])
def test_artifacts_lie_in_a_folder_or_a_bucket(url: str) -> None:
    with pytest.raises(ValidationError, match="artifacts_url"):
        Settings(artifacts_url=url)


def test_an_empty_value_is_absent_for_every_setting(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in Settings.model_fields:
        monkeypatch.setenv(f"NAG_{name.upper()}", "")
    assert Settings() == Settings.model_construct()


def test_an_empty_secret_file_is_absent_for_every_setting(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in Settings.model_fields:
        (tmp_path / f"nag_{name}").write_text("\n")
        monkeypatch.setenv(f"NAG_{name.upper()}", "")
    (tmp_path / "nag_port").write_text("81")
    monkeypatch.setenv("NAG_SECRETS_DIR", str(tmp_path))
    assert Settings() == Settings.model_construct(secrets_dir=tmp_path, port=81)


@pytest.mark.parametrize("name", ["a:b", "{a}", "a b", "a*", "ä", "a" * 65])
def test_a_namespace_cannot_end_its_hash_tag_or_match_others(name: str) -> None:
    with pytest.raises(ValidationError, match="redis_namespace"):
        Settings(redis_namespace=name)
