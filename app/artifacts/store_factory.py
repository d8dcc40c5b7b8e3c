"""Opens the store that the settings name: a local folder or a bucket."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

from obstore.exceptions import BaseError
from obstore.store import AzureStore, GCSStore, LocalStore, S3Store, from_url

from app.errors import CommandError
from app.folders import writable_folder
from app.settings import Settings

__all__ = [
    "ArtifactsError", "Bucket", "Store", "artifacts_folder", "open_signing_store", "open_store",
    "translate_store_errors",
]  # fmt: skip

Bucket = S3Store | GCSStore | AzureStore
Store = LocalStore | Bucket

#: A file is sent for as long as its reader takes. A request fails if no byte of it moves for SILENT_S.
REQUEST_S, SILENT_S, CONNECT_S = 7 * 86_400, 60, 10
#: Not every S3 server has the request that deletes many objects, which obstore sends for a single one as well.
BULK = "disable_bulk_delete"


class ArtifactsError(CommandError):
    """The store failed. The message may name the bucket, never a key."""


@contextmanager
def translate_store_errors() -> Iterator[None]:
    """Turns the errors of a store into ArtifactsError, except FileNotFoundError."""
    try:
        yield
    except FileNotFoundError:
        raise
    except (BaseError, OSError) as exc:
        raise ArtifactsError(str(exc).partition("\n")[0]) from exc


def artifacts_folder(settings: Settings) -> Path | None:
    """Returns the local folder; None if the artifacts are in a bucket."""
    url = settings.artifacts_url
    if url is None:
        return settings.data_folder / "artifacts"
    return Path(unquote(urlsplit(url).path)) if url.startswith("file:") else None


def open_store(settings: Settings, patience_s: float) -> Store:
    """Opens the store, whose requests are retried for `patience_s`. Raises ArtifactsError, FolderError."""
    path = artifacts_folder(settings)
    with translate_store_errors():
        if path is not None:
            variable = "NAG_DATA_DIR" if settings.artifacts_url is None else "NAG_ARTIFACTS_URL"
            return LocalStore(writable_folder(path, variable))
        return _open_bucket(settings, patience_s)


def open_signing_store(settings: Settings, store: Store, patience_s: float) -> Bucket | None:
    """Opens the store under the endpoint by which clients reach it; None for a folder. Raises ArtifactsError."""
    if isinstance(store, LocalStore):
        return None
    if settings.artifacts_public_endpoint is None:
        return store
    with translate_store_errors():
        return _open_bucket(settings, patience_s, settings.artifacts_public_endpoint)


def _open_bucket(settings: Settings, patience_s: float, endpoint: str | None = None) -> Bucket:
    # Typed by the kind of store, which only the URL states.
    options: Any = {name: value.get_secret_value() for name, value in (settings.artifacts_options or {}).items()}
    if endpoint is not None:
        options = {name: value for name, value in options.items() if "endpoint" not in name.lower()}
        options["endpoint"] = endpoint
    if str(settings.artifacts_url).startswith("s3") and not any(name.lower().endswith(BULK) for name in options):
        options[BULK] = "true"
    store = from_url(
        str(settings.artifacts_url),
        config=options,
        client_options={
            "allow_http": True,  # the endpoint's own scheme says which
            "timeout": timedelta(seconds=REQUEST_S),
            "read_timeout": timedelta(seconds=SILENT_S),
            "connect_timeout": timedelta(seconds=CONNECT_S),
        },
        retry_config={
            "max_retries": 1000,
            "retry_timeout": timedelta(seconds=patience_s),
            "backoff": {"init_backoff": timedelta(seconds=0.1), "max_backoff": timedelta(seconds=5), "base": 2},
        },
    )
    assert isinstance(store, Bucket)
    return store
