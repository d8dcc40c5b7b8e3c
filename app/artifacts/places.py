"""Where the artifacts lie: the store that the settings name."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

from obstore.store import AzureStore, GCSStore, LocalStore, S3Store, from_url

from app.artifacts.errors import translated
from app.settings import Settings

__all__ = ["Bucket", "Store", "folder", "open_store"]

Bucket = S3Store | GCSStore | AzureStore
Store = LocalStore | Bucket

#: A file is sent for as long as its reader takes; what bounds a request is that something goes on in it.
REQUEST_S, SILENT_S, CONNECT_S = 7 * 86_400, 60, 10


def folder(settings: Settings) -> Path | None:
    """The local folder; None where the artifacts lie in a bucket."""
    url = settings.artifacts_url
    if url is None:
        return settings.data_folder / "artifacts"
    return Path(unquote(urlsplit(url).path)) if url.startswith("file:") else None


def open_store(settings: Settings, patience_s: float) -> Store:
    """A store that tries for `patience_s` to do what it is asked. Raises ArtifactsError."""
    path = folder(settings)
    with translated():
        if path is not None:
            return LocalStore(path, mkdir=True)
        # Typed by the kind of store, which only the URL tells.
        options: Any = {name: value.get_secret_value() for name, value in (settings.artifacts_options or {}).items()}
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
