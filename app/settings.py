"""The service's settings: the only reader of the environment, read once, frozen."""

from __future__ import annotations

import json
import os
import re
from base64 import b64decode
from contextlib import suppress
from ipaddress import IPv4Network, IPv6Network
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import DirectoryPath, Field, SecretStr, ValidationInfo, field_serializer, field_validator
from pydantic.fields import FieldInfo
from pydantic_settings import (
    BaseSettings,
    NoDecode,
    PydanticBaseSettingsSource,
    SecretsSettingsSource,
    SettingsConfigDict,
)

from app.auth.api_key import ApiKey
from app.queue.address import parse_address

__all__ = ["ANY_ADDRESS", "SECRET", "Settings"]

#: Fields whose value is shown to nobody, not even where it does not fit.
SECRET = frozenset({"api_key", "api_keys", "artifacts_options", "redis_url", "url_secrets", "webhook_secret"})
#: Also of apps and extensions, whose pages have schemes of their own.
ORIGIN = re.compile(r"[a-z][a-z0-9+.-]*://([a-z0-9._-]+|\[[0-9a-f:]+\])(:[0-9]{1,5})?")
URL = r"^https?://[^\s?#@]+$"
ANY_ADDRESS = {"0.0.0.0": "127.0.0.1", "::": "[::1]"}  # noqa: S104 - where a server bound to all is reached from here


class _SecretFiles(SecretsSettingsSource):
    """Reads settings from files; an empty file counts as absent."""

    def get_field_value(self, field: FieldInfo, field_name: str) -> tuple[Any, str, bool]:
        value, key, is_complex = super().get_field_value(field, field_name)
        return value or None, key, is_complex


class Settings(BaseSettings):
    """Each field is read from `NAG_<FIELD>`; an empty value counts as absent, and a value that does not fit ends the
    start with the field's name.
    """

    model_config = SettingsConfigDict(
        env_prefix="NAG_", frozen=True, extra="ignore", env_ignore_empty=True, hide_input_in_errors=True
    )

    host: Annotated[str, Field(description="address the API binds")] = "127.0.0.1"
    port: Annotated[int, Field(ge=0, le=65535, description="port the API binds; 0 takes a free one")] = 8000
    data_dir: Annotated[Path, Field(description="folder of the artifacts and of the embedded Valkey's files")] = Path(
        "~/.local/share/nag-server"
    )
    redis_url: Annotated[
        str | None,
        Field(
            repr=False,
            description="URL of Redis 7.0 or newer, or of Valkey; absent, `up` starts an embedded Valkey in "
            "NAG_DATA_DIR",
        ),
    ] = None
    redis_namespace: Annotated[
        str,
        Field(
            pattern="^[A-Za-z0-9_.-]{1,64}$",
            description="prefix of every key and channel in Redis; services that share a Redis need one each",
        ),
    ] = "nag"
    catalog: Annotated[
        Path | None, Field(description="TOML file of models beside the built-in ones; its entries win")
    ] = None
    models: Annotated[
        tuple[str, ...] | None,
        NoDecode,
        Field(
            description="ids of the models served, with commas; absent, the embedded models and those of NAG_CATALOG"
        ),
    ] = None
    aliases: Annotated[
        tuple[str, ...] | None,
        NoDecode,
        Field(
            description="further names of models, as `dall-e-3` or `dall-e-3=flux-dev`, with commas; `none`: none; "
            "absent, "
            "those that popular clients have built in"
        ),
    ] = None
    strict: Annotated[
        bool,
        Field(
            description="`false`: what a model cannot honour is left out with a warning, unless a request or its key "
            "is strict"
        ),
    ] = True
    response_format: Annotated[
        Literal["b64_json", "url"],
        Field(description="how images are answered if neither the request nor its alias says it: `b64_json` or `url`"),
    ] = "b64_json"
    device: Annotated[str, Field(description="torch device of a worker; `auto` takes CUDA if there is any")] = "auto"
    devices: Annotated[
        tuple[Annotated[int, Field(ge=0)], ...] | None,
        NoDecode,
        Field(
            description="numbers of this machine's devices, with commas; as many as a model asks for (parallel) make "
            "one worker; absent, the first ones"
        ),
    ] = None
    nodes: Annotated[int, Field(ge=1, description="machines that share the devices of one worker")] = 1
    node: Annotated[int, Field(ge=0, description="number of this machine among them; 0 serves")] = 0
    rendezvous: Annotated[
        str | None,
        Field(
            validate_default=True,
            pattern="^(tcp|file)://",
            description="where they meet, as tcp://host:port of machine 0",
        ),
    ] = None
    rank_timeout_s: Annotated[
        float,
        Field(gt=0, description="a worker over several devices ends if one keeps the others waiting for longer"),
    ] = 120.0
    warm: Annotated[
        tuple[str, ...] | None,
        NoDecode,
        Field(
            description="ids a worker loads at its start, with commas, or `none`; absent, the default and all on its "
            "disk that fit"
        ),
    ] = None
    model_memory_bytes: Annotated[
        int | None,
        Field(
            gt=0, description="memory that a worker's loaded models may take together; absent, a share of the device's"
        ),
    ] = None
    model_host_bytes: Annotated[
        int,
        Field(
            ge=0,
            description="main memory for models that had to make room on a GPU, so that they are back sooner; 0: none",
        ),
    ] = 0
    tf32: Annotated[
        bool,
        Field(description="`true`: a GPU multiplies float32 matrices in TF32, for every model of the worker"),
    ] = False
    prompt_cache_bytes: Annotated[int, Field(ge=0, description="main memory for encoded prompts; 0: none are kept")] = (
        256 * 2**20
    )
    lora_memory_bytes: Annotated[
        int | None,
        Field(gt=0, description="memory of a worker's device for the LoRAs of requests; absent, 5 % of it"),
    ] = None
    lora_host_bytes: Annotated[
        int, Field(ge=0, description="main memory of a worker for LoRAs of requests; 0: each file is read again")
    ] = 2**30
    batch_size: Annotated[
        int, Field(ge=1, le=256, description="most images of a model's default size in a denoiser call")
    ] = 32
    batch_budget: Annotated[
        Literal["measured", "fixed"],
        Field(
            description="`measured`: as many images together as gain throughput, up to NAG_BATCH_SIZE, learned while "
            "the model serves; `fixed`: NAG_BATCH_SIZE"
        ),
    ] = "measured"
    overlap: Annotated[
        Literal["auto", "on", "off"],
        Field(
            description="whether autoencoders run beside the denoiser; `auto`: on CUDA, and for videos on every device"
        ),
    ] = "auto"
    drain_s: Annotated[
        float,
        Field(
            ge=0,
            description="a worker told to stop finishes what ends in this time, and hands back the rest; an API holds "
            "requests no longer",
        ),
    ] = 10.0
    oldest_wait_s: Annotated[
        float, Field(gt=0, description="a job that has waited longer goes before its tenant's other jobs")
    ] = 30.0
    queue_limit: Annotated[
        int, Field(ge=1, description="most queued jobs of all models; beyond it a request is answered 429")
    ] = 4000
    queue_limit_per_model: Annotated[
        int, Field(ge=1, description="most queued jobs of one model; beyond it a request is answered 429")
    ] = 1000
    deadline_max_s: Annotated[
        float,
        Field(
            gt=0,
            le=31_536_000,
            description="a job not done this long after acceptance expires; a request may ask for less",
        ),
    ] = 86_400.0
    lease_s: Annotated[float, Field(gt=0, description="a job whose worker is silent for this long is queued again")] = (
        15.0
    )
    stuck_s: Annotated[
        float,
        Field(gt=0, description="a worker ends if one model call or load takes longer; its jobs are queued again"),
    ] = 900.0
    max_attempts: Annotated[int, Field(ge=1, description="a job lost by this many workers fails as `worker_lost`")] = 3
    retention_s: Annotated[float, Field(gt=0, description="how long a finished job and its artifacts are kept")] = (
        86_400.0
    )
    artifacts_url: Annotated[
        str | None,
        Field(
            pattern=r"^(file|s3|s3a|gs|az|azure|abfs|abfss|adl)://",
            description="folder (`file:///…`) or bucket with a prefix (`s3://…`, `gs://…`, `az://…`) of the "
            "artifacts; absent, a folder in NAG_DATA_DIR",
        ),
    ] = None
    artifacts_options: Annotated[
        dict[str, SecretStr] | None,
        NoDecode,
        Field(description="the bucket's options as a JSON object; those absent come from the provider's own variables"),
    ] = None
    artifacts_public_endpoint: Annotated[
        str | None,
        Field(
            pattern=URL, description="endpoint of the bucket in links, if clients reach it by another than the API does"
        ),
    ] = None
    artifacts_links: Annotated[
        Literal["bucket", "api"],
        Field(
            description="links to files in a bucket: `bucket`, its own presigned URLs; `api`, if clients cannot reach "
            "the bucket"
        ),
    ] = "bucket"
    url_lifetime_s: Annotated[
        float,
        Field(
            ge=1,
            le=604_800,
            description="longest that a link to a file works; it works for three quarters of that at least",
        ),
    ] = 3600.0
    url_secrets: Annotated[
        tuple[SecretStr, ...] | None,
        NoDecode,
        Field(
            description="secrets with commas: the first signs links, and links signed by the others hold; absent, one "
            "drawn into NAG_DATA_DIR"
        ),
    ] = None
    public_url: Annotated[
        str | None,
        Field(
            pattern=URL,
            description="address by which clients reach the API, with the path that a proxy serves it under; links "
            "begin with it",
        ),
    ] = None
    trusted_proxies: Annotated[
        tuple[IPv4Network | IPv6Network, ...],
        NoDecode,
        Field(
            description="networks of proxies whose X-Forwarded-Proto, -Host and -Prefix are believed, with commas, as "
            "`10.0.0.0/8`; absent: none"
        ),
    ] = ()
    wait_max_s: Annotated[
        float,
        Field(
            gt=0,
            description="longest that a request is held for its result; many proxies close a connection after 60 s of "
            "silence",
        ),
    ] = 50.0
    rejoin_s: Annotated[
        float,
        Field(
            ge=0,
            description="a job whose client left while it waited is cancelled after this time, unless the same request "
            "comes again and takes it over; 0: at once",
        ),
    ] = 15.0
    body_max_bytes: Annotated[int, Field(ge=1024, description="largest request body")] = 1_000_000
    input_max_bytes: Annotated[
        int, Field(ge=1024, description="largest image that a request starts from, as a file")
    ] = 20_000_000
    video_max_bytes: Annotated[int, Field(ge=1024, description="largest video that is uploaded, as a file")] = (
        200_000_000
    )
    files_max_bytes: Annotated[int, Field(ge=0, description="most bytes of all uploaded files of a tenant")] = (
        1_000_000_000
    )
    file_retention_s: Annotated[float, Field(gt=0, description="longest that an uploaded file is kept")] = 86_400.0
    input_url_hosts: Annotated[
        tuple[str, ...],
        NoDecode,
        Field(
            description="hosts whose http(s) URLs are fetched as inputs, with commas; `.example.org`: all below it; "
            "absent: none"
        ),
    ] = ()
    input_max_px: Annotated[
        int, Field(ge=1, description="most pixels of an image that a request starts from, checked before it is decoded")
    ] = 16_777_216
    lora_max_bytes: Annotated[int, Field(ge=1024, description="largest LoRA that may be uploaded, as a file")] = 10**9
    loras_per_tenant: Annotated[
        int, Field(ge=0, description="most LoRAs that a tenant may upload; and most that all tenants share")
    ] = 100
    lora_bytes_per_tenant: Annotated[
        int, Field(ge=0, description="bytes of LoRAs that a tenant may upload; and that all tenants share")
    ] = 10**10
    lora_cache_bytes: Annotated[
        int,
        Field(
            ge=0,
            description="bytes of copies of uploaded LoRAs in NAG_DATA_DIR; the least recently used ones make room",
        ),
    ] = 10**10
    head_max_bytes: Annotated[int, Field(ge=1024, description="largest head of a request: its URL and headers")] = (
        32_768
    )
    read_timeout_s: Annotated[
        float, Field(gt=0, description="longest that the head of a request may take to arrive, and then its body")
    ] = 30.0
    sdapi: Annotated[
        bool, Field(description="whether the routes of AUTOMATIC1111's web API, `/sdapi/v1/…`, are served")
    ] = True
    cors_origins: Annotated[
        tuple[str, ...],
        NoDecode,
        Field(
            description="sites, apps and extensions whose pages may call the API, as `https://example.org` or "
            "`app://obsidian.md`, with commas, or `*`; absent: none"
        ),
    ] = ()
    api_keys_file: Annotated[
        Path | None,
        Field(description="TOML file of API keys, one table `[keys.<id>]` per key; read again when it changes"),
    ] = None
    api_keys: Annotated[
        tuple[ApiKey, ...], NoDecode, Field(description="API keys beside those of the file, as a JSON list of tables")
    ] = ()
    api_key: Annotated[str | None, Field(description="the key that this machine's commands send to a server")] = None
    metrics_host: Annotated[str, Field(description="address at which a worker shows its metrics")] = "127.0.0.1"
    metrics_port: Annotated[
        int,
        Field(
            ge=0,
            le=65535,
            description="port of a worker's metrics; 0 takes a free one, which GET /metrics/workers names",
        ),
    ] = 0
    secrets_dir: Annotated[
        DirectoryPath | None,
        Field(description="folder of files that are named as these variables in lower case; read for absent variables"),
    ] = None
    log_prompts: Annotated[bool, Field(description="whether the log shows the prompts of the jobs")] = False
    webhook_secret: Annotated[
        str | None,
        Field(
            repr=False,
            description="signs webhooks: `whsec_` and the base64 of 24 to 64 random bytes; without it, requests for a "
            "webhook are refused",
        ),
    ] = None
    webhook_allow: Annotated[
        tuple[IPv4Network | IPv6Network, ...],
        NoDecode,
        Field(
            description="networks that webhooks and URLs of inputs may reach in addition to public addresses, with "
            "commas"
        ),
    ] = ()
    webhook_attempts: Annotated[
        int, Field(ge=1, le=20, description="how often the event that ends a job is sent until its receiver takes it")
    ] = 8
    webhook_retry_s: Annotated[
        float,
        Field(
            gt=0,
            description="wait before the second attempt; four times longer before each further one, an hour at most",
        ),
    ] = 5.0
    otlp_endpoint: Annotated[
        str | None,
        Field(
            pattern="^https?://",
            description="collector of traces, by OTLP over HTTP, as `http://127.0.0.1:4318`; absent: none; needs the "
            "extra `tracing`",
        ),
    ] = None
    log_level: Annotated[str, Field(pattern="^(debug|info|warning|error)$", description="least severe line logged")] = (
        "info"
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

    @field_validator("redis_url")
    @classmethod
    def _is_address(cls, value: str | None) -> str | None:
        if value is not None:
            parse_address(value)
        return value

    @field_validator("artifacts_options", mode="before")
    @classmethod
    def _object(cls, value: object) -> object:
        if not isinstance(value, str):
            return value
        try:
            read = json.loads(value)
        except ValueError:
            raise ValueError("must be a JSON object") from None
        return {name: str(item) for name, item in read.items()} if isinstance(read, dict) else read

    @field_serializer("artifacts_options", "url_secrets", when_used="json-unless-none")
    def _in_the_open(self, value: dict[str, SecretStr] | tuple[SecretStr, ...]) -> str:
        """As it is read from the environment, which is how `up` hands it to the parts it starts."""
        if isinstance(value, dict):
            return json.dumps({name: secret.get_secret_value() for name, secret in value.items()})
        return ",".join(secret.get_secret_value() for secret in value)

    @field_validator("rendezvous")
    @classmethod
    def _is_one_of_nodes(cls, value: str | None, info: ValidationInfo) -> str | None:
        nodes, node = info.data.get("nodes", 1), info.data.get("node", 0)
        if node >= nodes:
            raise ValueError(f"NAG_NODE must be below NAG_NODES={nodes}, got {node}")
        if nodes > 1 and (value is None or not value.startswith("tcp://")):
            raise ValueError(f"must be tcp://host:port if NAG_NODES is more than 1, got {value}")
        return value

    @field_validator("models", "aliases", "devices", "warm", "url_secrets", mode="before")
    @classmethod
    def _split(cls, value: object) -> object:
        return tuple(filter(None, map(str.strip, value.split(",")))) or None if isinstance(value, str) else value

    @field_validator("cors_origins", "webhook_allow", "input_url_hosts", "trusted_proxies", mode="before")
    @classmethod
    def _split_list(cls, value: object) -> object:
        return tuple(filter(None, map(str.strip, value.split(",")))) if isinstance(value, str) else value

    @field_validator("cors_origins")
    @classmethod
    def _are_origins(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for origin in value:
            if origin != "*" and ORIGIN.fullmatch(origin) is None:
                raise ValueError(f"{origin}: not an origin such as https://example.org or app://obsidian.md")
        return value

    @field_validator("webhook_secret")
    @classmethod
    def _is_secret(cls, value: str | None) -> str | None:
        if value is None:
            return None
        with suppress(ValueError):
            if value.startswith("whsec_") and 24 <= len(b64decode(value.removeprefix("whsec_"), validate=True)) <= 64:
                return value
        raise ValueError("must be whsec_ and the base64 of 24 to 64 bytes")

    @field_validator("api_keys", mode="before")
    @classmethod
    def _read_json(cls, value: object) -> object:
        return json.loads(value) if isinstance(value, str) else value

    def as_environment(self) -> dict[str, str]:
        """What another process reads these settings from."""
        values = self.model_dump(mode="json", exclude_none=True)
        values["api_keys"] = json.dumps(values["api_keys"])
        return {
            f"NAG_{name.upper()}": ",".join(map(str, value)) if isinstance(value, list) else str(value)
            for name, value in values.items()
        }

    @property
    def asks_for_keys(self) -> bool:
        """Whether a caller needs an API key: from the first one on, and with a file that is still empty."""
        return bool(self.api_keys) or self.api_keys_file is not None

    @property
    def data_folder(self) -> Path:
        return self.data_dir.expanduser().resolve()

    @property
    def url(self) -> str:
        """Where a server with these settings is reached from this machine."""
        host = ANY_ADDRESS.get(self.host, f"[{self.host}]" if ":" in self.host else self.host)
        return f"http://{host}:{self.port}"
