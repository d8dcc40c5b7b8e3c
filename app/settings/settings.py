"""All settings together, read from the environment once and then frozen."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Annotated, Any

from pydantic import DirectoryPath, Field
from pydantic.fields import FieldInfo
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SecretsSettingsSource, SettingsConfigDict

from app.settings.api import ANY_ADDRESS, ApiSettings
from app.settings.inputs import InputSettings
from app.settings.models import ModelSettings
from app.settings.queue import QueueSettings
from app.settings.results import ResultSettings
from app.settings.types import SettingsGroup
from app.settings.webhooks import WebhookSettings
from app.settings.workers import WorkerSettings

__all__ = ["ANY_ADDRESS", "SECRET", "ProcessSettings", "Settings"]

#: Fields whose value is shown to nobody, not even in the error that it does not fit.
SECRET = frozenset({"api_key", "api_keys", "artifacts_options", "redis_url", "url_secrets", "webhook_secret"})


class ProcessSettings(SettingsGroup):
    """Settings of every process."""

    data_dir: Path = Path("~/.local/share/nag-server")
    """Folder of the stored files and of the embedded Valkey."""

    secrets_dir: DirectoryPath | None = None
    """Folder of files that are named as these variables in lower case. They are read for absent variables."""

    log_level: Annotated[str, Field(pattern="^(debug|info|warning|error)$")] = "info"
    """Least severe level that is logged: `debug`, `info`, `warning` or `error`."""

    log_prompts: bool = False
    """Whether the log shows the prompts of the jobs."""

    otlp_endpoint: Annotated[str | None, Field(pattern="^https?://")] = None
    """Collector of traces, by OTLP over HTTP, such as `http://127.0.0.1:4318`. It needs the extra `tracing`.
    Default: none.
    """

    @property
    def data_folder(self) -> Path:
        return self.data_dir.expanduser().resolve()


class _SecretFiles(SecretsSettingsSource):
    """Reads settings from files; an empty file counts as absent."""

    def get_field_value(self, field: FieldInfo, field_name: str) -> tuple[Any, str, bool]:
        value, key, is_complex = super().get_field_value(field, field_name)
        return value or None, key, is_complex


class Settings(
    ModelSettings, WorkerSettings, QueueSettings, ResultSettings, InputSettings, WebhookSettings, ApiSettings,
    ProcessSettings, BaseSettings,
):  # fmt: skip
    """Each field is read from `NAG_<FIELD>`; an empty value counts as absent, and a value that does not fit ends the
    start with the field's name.
    """

    model_config = SettingsConfigDict(
        env_prefix="NAG_", frozen=True, extra="ignore", env_ignore_empty=True, hide_input_in_errors=True
    )

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        del dotenv_settings, file_secret_settings  # there is no .env; this folder is known once the environment is read
        folder = os.environ.get("NAG_SECRETS_DIR")
        if not folder or not Path(folder).is_dir():  # the field says so
            return init_settings, env_settings
        return init_settings, env_settings, _SecretFiles(settings_cls, secrets_dir=folder)

    def as_environment(self) -> dict[str, str]:
        """Returns the variables from which another process reads these settings."""
        values = self.model_dump(mode="json", exclude_none=True)
        values["api_keys"] = json.dumps(values["api_keys"])
        return {
            f"NAG_{name.upper()}": ",".join(map(str, value)) if isinstance(value, list) else str(value)
            for name, value in values.items()
        }
