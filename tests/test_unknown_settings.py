import re
from pathlib import Path

import pytest

from app.cli import main
from app.settings import Settings
from app.unknown_settings import OF_COMPOSE, REMOVED, unknown_settings

ROOT = Path(__file__).parents[1]
NONE = "is not a setting and has no effect"


@pytest.mark.parametrize(
    ("name", "warning"),
    [
        ("NAG_MODEL", f"NAG_MODEL {NONE}; did you mean NAG_MODELS?"),
        ("nag_redis_uri", f"nag_redis_uri {NONE}; did you mean NAG_REDIS_URL?"),
        ("NAG_BATCH_WINDOW_MS", f"NAG_BATCH_WINDOW_MS {NONE}: it was removed, since no request waits for others"),
        ("NAG_XYLOPHONE", f"NAG_XYLOPHONE {NONE}"),
    ],
)
def test_a_warning_names_the_variable_and_what_is_likely_meant_but_no_value(name: str, warning: str) -> None:
    assert unknown_settings({name: "secret", "PATH": "/bin"}) == {name: warning}


def test_a_file_among_the_secrets_is_named_by_its_path(tmp_path: Path) -> None:
    for name in ("nag_redis_url", "nag_webhook_secrt", "hf_token"):
        (tmp_path / name).write_text("secret")
    path = str(tmp_path / "nag_webhook_secrt")
    assert unknown_settings({"NAG_SECRETS_DIR": str(tmp_path)}) == {
        path: f"{path} {NONE}; did you mean NAG_WEBHOOK_SECRET?"
    }
    assert unknown_settings({"NAG_SECRETS_DIR": str(tmp_path / "none")}) == {}


def test_nothing_is_said_of_settings_or_of_what_compose_reads() -> None:
    names = {f"NAG_{name.upper()}" for name in Settings.model_fields}
    assert unknown_settings(dict.fromkeys([*names, *map(str.lower, names), *OF_COMPOSE], "")) == {}


def test_the_variables_of_compose_are_those_that_its_files_read() -> None:
    text = "".join((ROOT / name).read_text() for name in ("docker-compose.yml", "docker/secrets.sh"))
    settings = {f"NAG_{name.upper()}" for name in Settings.model_fields}
    assert set(re.findall(r"\$\{(NAG_\w+)", text)) - settings == OF_COMPOSE
    assert not settings & REMOVED.keys()


@pytest.mark.parametrize("command", [["models", "list"], ["keys", "new", "a", "--tenant", "b"]])
def test_a_command_warns_and_does_its_work(
    command: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("NAG_LOGLEVEL", "debug")
    assert main(command) == 0
    said = capsys.readouterr()
    assert said.err.splitlines()[0] == f"nag-server: warning: NAG_LOGLEVEL {NONE}; did you mean NAG_LOG_LEVEL?"
    assert said.out
