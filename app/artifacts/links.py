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

from app.artifacts.names import is_name
from app.artifacts.store import Artifacts
from app.errors import Expired, Forbidden
from app.folders import writable_folder
from app.settings import Settings

__all__ = ["PATH", "Link", "Links"]

#: Of the API, where it answers the links itself.
PATH = "/v1/artifacts/"
SECRET_BYTES = 32
#: Links given within this part of their lifetime are the same, so that a browser need not ask again for what it holds.
STEPS = 4


@dataclass(frozen=True)
class Link:
    """A path or a URL on the API, or a bucket's URL; until when it works, in Unix seconds."""

    url: str
    expires_at: int


class Links:
    """Signs by the first of the secrets, and honours what any of them signed: so they can be changed in turn."""

    def __init__(
        self, secrets: Sequence[bytes], lifetime_s: float, bucket: Artifacts | None = None, base_url: str = ""
    ) -> None:
        self._secrets = tuple(secrets)
        self._lifetime_s = lifetime_s
        self._bucket = bucket
        self._base_url = base_url.rstrip("/")

    @classmethod
    def open(cls, settings: Settings, artifacts: Artifacts) -> Self:
        """By the settings' secrets, or by one that all processes on this data folder share. Raises FolderError."""
        given = tuple(each.get_secret_value().encode() for each in settings.url_secrets or ())
        bucket = artifacts if settings.artifacts_links == "bucket" else None
        return cls(given or (_shared_secret(settings.data_folder),), settings.url_lifetime_s, bucket)

    def below(self, base_url: str) -> Links:
        """The same links, those to the API as URLs below `base_url`."""
        return Links(self._secrets, self._lifetime_s, self._bucket, base_url)

    def to(self, name: str) -> Link:
        """A link to the artifact from now on. Raises ArtifactsError where a bucket's credentials do not sign."""
        now, step_s = time.time(), max(1, int(self._lifetime_s) // STEPS)
        expires_at = int(now + self._lifetime_s) // step_s * step_s
        url = self._bucket and self._bucket.signed_url(name, expires_at - now)
        if not url:
            signature = _signature(name, str(expires_at), self._secrets[0])
            url = f"{self._base_url}{PATH}{name}?expires={expires_at}&signature={signature.decode()}"
        return Link(url, expires_at)

    def check(self, name: str, expires: str, signature: str) -> int:
        """For how many seconds the link still works.

        Raises Forbidden for what was not signed here, Expired for what was and no longer holds.
        """
        given = signature.encode()
        genuine = [hmac.compare_digest(_signature(name, expires, secret), given) for secret in self._secrets]
        if not any(genuine) or not is_name(name):
            raise Forbidden("the link is not one that this server has signed", code="invalid_signature")
        left_s = math.ceil(int(expires) - time.time())
        if left_s <= 0:
            raise Expired("the link has expired; the job's answer holds a new one")
        return left_s


def _signature(name: str, expires: str, secret: bytes) -> bytes:
    return urlsafe_b64encode(hmac.digest(secret, f"{name}\n{expires}".encode(), hashlib.sha256)).rstrip(b"=")


def _shared_secret(folder: Path) -> bytes:
    """Drawn by whichever process comes first."""
    path = folder / "url-secret"
    with suppress(FileNotFoundError):
        return path.read_bytes()
    writable_folder(folder, "NAG_DATA_DIR")
    draft = folder / f"url-secret.{secrets.token_hex(4)}"
    draft.touch(mode=0o600)
    try:
        draft.write_bytes(secrets.token_hex(SECRET_BYTES).encode())
        with suppress(FileExistsError):
            path.hardlink_to(draft)  # whole or not at all, and never over another's
    finally:
        draft.unlink()
    return path.read_bytes()
