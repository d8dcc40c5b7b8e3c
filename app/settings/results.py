"""Settings of the files that jobs make, and of the links to them."""

from __future__ import annotations

import json
from typing import Annotated, Literal

from pydantic import Field, SecretStr, field_serializer, field_validator
from pydantic_settings import NoDecode

from app.settings.types import OptionalCommaList, SettingsGroup, Url

__all__ = ["ResultSettings"]


class ResultSettings(SettingsGroup):
    artifacts_url: Annotated[str | None, Field(pattern=r"^(file|s3|s3a|gs|az|azure|abfs|abfss|adl)://")] = None
    """Where the files are stored: a folder (`file:///…`), or a bucket with a prefix (`s3://…`, `gs://…`, `az://…`).
    Default: a folder in NAG_DATA_DIR.
    """

    artifacts_options: Annotated[dict[str, SecretStr] | None, NoDecode] = None
    """Options of the bucket as a JSON object. Options that are absent come from the provider's own variables."""

    artifacts_public_endpoint: Url | None = None
    """Endpoint of the bucket in links, if clients reach it by another one than the API does."""

    artifacts_links: Literal["bucket", "api"] = "bucket"
    """Links to files in a bucket: `bucket` for its own presigned URLs; `api` if clients cannot reach the bucket."""

    url_lifetime_s: Annotated[float, Field(ge=1, le=604_800)] = 3600.0
    """Longest time that a link to a file works. It works for at least three quarters of it."""

    url_secrets: OptionalCommaList[SecretStr] = None
    """Comma-separated secrets. The first signs links; links that the others signed still work. Default: a random one,
    stored in NAG_DATA_DIR.
    """

    @field_validator("artifacts_options", mode="before")
    @classmethod
    def _read_object(cls, value: object) -> object:
        if not isinstance(value, str):
            return value
        try:
            read = json.loads(value)
        except ValueError:
            raise ValueError("must be a JSON object") from None
        return {name: str(item) for name, item in read.items()} if isinstance(read, dict) else read

    @field_serializer("artifacts_options", "url_secrets", when_used="json-unless-none")
    def _reveal(self, value: dict[str, SecretStr] | tuple[SecretStr, ...]) -> str:
        """Writes the secrets as the environment has them, which is how `up` hands them to the processes it starts."""
        if isinstance(value, dict):
            return json.dumps({name: secret.get_secret_value() for name, secret in value.items()})
        return ",".join(secret.get_secret_value() for secret in value)
