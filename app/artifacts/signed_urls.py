"""Links to files that work without a key until they expire."""

from __future__ import annotations

import hashlib
import hmac
import math
import secrets
import time
from base64 import urlsafe_b64encode
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from app.artifacts.artifacts import Artifacts
from app.artifacts.naming import is_name
from app.errors import Forbidden, Gone
from app.folders import writable_folder
from app.settings import Settings

__all__ = ["PATH", "Link", "Links"]

#: The API's route of the links that it serves itself.
PATH = "/v1/artifacts/"
SECRET_BYTES = 32
#: Links made within this fraction of their lifetime are equal, so that a browser finds the file in its cache.
STEPS = 4


@dataclass(frozen=True)
class Link:
    """A path or a URL on the API, or a bucket's URL; it works until `expires_at`, in Unix seconds."""

    url: str
    expires_at: int


class Links:
    """Signs with the first of the secrets and accepts signatures of all of them, so that secrets can be rotated."""

    def __init__(
        self, secrets: Sequence[bytes], lifetime_s: float, bucket: Artifacts | None = None, base_url: str = ""
    ) -> None:
        self._secrets = tuple(secrets)
        self._lifetime_s = lifetime_s
        self._bucket = bucket
        self._base_url = base_url.rstrip("/")

    @classmethod
    def open(cls, settings: Settings, artifacts: Artifacts) -> Self:
        """Opens links with the settings' secrets, else with one shared by all processes on this data folder.

        Raises FolderError.
        """
        own = tuple(secret.get_secret_value().encode() for secret in settings.url_secrets or ())
        bucket = artifacts if settings.artifacts_links == "bucket" else None
        return cls(own or (_shared_secret(settings.data_folder),), settings.url_lifetime_s, bucket)

    def below(self, base_url: str) -> Links:
        """Returns links that are URLs below `base_url` if these are paths of the API."""
        return Links(self._secrets, self._lifetime_s, self._bucket, base_url)

    def to(self, name: str) -> Link:
        """Returns a link to the artifact. Raises ArtifactsError if a bucket's credentials cannot sign."""
        now, step_s = time.time(), max(1, int(self._lifetime_s) // STEPS)
        expires_at = int(now + self._lifetime_s) // step_s * step_s
        url = self._bucket and self._bucket.signed_url(name, expires_at - now)
        if not url:
            signature = _signature(name, str(expires_at), self._secrets[0])
            url = f"{self._base_url}{PATH}{name}?expires={expires_at}&signature={signature.decode()}"
        return Link(url, expires_at)

    def check(self, name: str, expires: str, signature: str) -> int:
        """Returns for how many seconds the link still works.

        Raises Forbidden for a signature that this server did not make, Gone for a link that no longer works.
        """
        matches = [
            hmac.compare_digest(_signature(name, expires, secret), signature.encode()) for secret in self._secrets
        ]
        if not any(matches) or not is_name(name):
            raise Forbidden("the link was not signed by this server", code="invalid_signature")
        left_s = math.ceil(int(expires) - time.time())
        if left_s <= 0:
            raise Gone("the link has expired; get the job again for a new one")
        return left_s


def _signature(name: str, expires: str, secret: bytes) -> bytes:
    return urlsafe_b64encode(hmac.digest(secret, f"{name}\n{expires}".encode(), hashlib.sha256)).rstrip(b"=")


def _shared_secret(folder: Path) -> bytes:
    """Reads the folder's secret, which the first process creates."""
    path = folder / "url-secret"
    with suppress(FileNotFoundError):
        return path.read_bytes()
    writable_folder(folder, "NAG_DATA_DIR")
    draft = folder / f"url-secret.{secrets.token_hex(4)}"
    draft.touch(mode=0o600)
    try:
        draft.write_bytes(secrets.token_hex(SECRET_BYTES).encode())
        with suppress(FileExistsError):
            path.hardlink_to(draft)  # whole or not at all, and never over that of another process
    finally:
        draft.unlink()
    return path.read_bytes()
