"""Authenticates and authorizes a request by its headers, method and path, before its body is read."""

from __future__ import annotations

from base64 import b64decode
from dataclasses import dataclass

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Receive, Scope, Send

from app.api import sdapi
from app.api.middleware.early_response import refuse
from app.artifacts.signed_urls import PATH as ARTIFACTS_PATH
from app.auth import ApiKey
from app.auth import Scope as KeyScope
from app.auth.keyring import Keyring
from app.errors import Forbidden, InvalidApiKey, ServiceError
from app.jobs import TENANT

__all__ = ["API_KEY", "NOBODY", "AuthMiddleware", "Caller", "needed"]

#: Without a key: what a load balancer asks for, and what a browser loads to read or to type a key into.
OPEN = frozenset({"/", "/healthz", "/readyz", "/docs", "/openapi.json"})
#: Without a key as well, being files of the package, or guarded by the signature in their link.
OPEN_UNDER = ("/docs/", "/playground/", ARTIFACTS_PATH)
#: The other header that may have the key.
API_KEY = "api-key"
#: Of all tenants together.
ADMIN = frozenset({"/metrics", "/metrics/workers"})


@dataclass(frozen=True)
class Caller:
    """Sees the jobs of its tenant alone, and of none without one."""

    tenant: str | None
    key: ApiKey | None = None


#: Came in without a key if keys are asked for.
NOBODY = Caller(None)


def needed(method: str, path: str) -> KeyScope | None:
    """Returns the scope that a request needs; None if it needs no key. A route that is not named here needs one."""
    if path in OPEN or path.startswith(OPEN_UNDER):
        return None
    if path in ADMIN:
        return KeyScope.ADMIN
    return KeyScope.READ if method in ("GET", "HEAD") else KeyScope.GENERATE


class AuthMiddleware:
    """Puts the caller into `request.state.caller`, or answers 401 or 403."""

    def __init__(self, app: ASGIApp, keyring: Keyring) -> None:
        self.app = app
        self.keyring = keyring

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return await self.app(scope, receive, send)
        try:
            caller = self._caller(scope)
        except ServiceError as error:
            return await refuse(error, scope, receive, send)
        scope.setdefault("state", {})["caller"] = caller
        return await self.app(scope, receive, send)

    def _caller(self, scope: Scope) -> Caller:
        """Raises InvalidApiKey, Forbidden."""
        if not self.keyring.is_required:
            return Caller(TENANT)
        need = needed(scope["method"], scope["path"])
        if need is None:
            return NOBODY
        key = self.keyring.find(_secret(Headers(scope=scope), takes_basic=sdapi.owns(scope["path"])))
        if key is None:
            raise InvalidApiKey("no such API key")
        if need not in key.scopes:
            raise Forbidden(f"the API key {key.id} lacks the scope {need}")
        return Caller(key.tenant, key)


def _secret(headers: Headers, *, takes_basic: bool) -> str:
    """Returns the key of a request: a bearer token, `api-key` as clients of Azure send it or, if the route takes that,
    the password of Basic. Raises InvalidApiKey.
    """
    said, keys = headers.getlist("authorization"), headers.getlist(API_KEY)
    ways = "Bearer <key>, or the key as the password of Basic" if takes_basic else "Bearer <key>"
    if not said and not keys:
        raise InvalidApiKey(f"an API key is needed: send it as Authorization: {ways}", code="missing_api_key")
    secrets = [key.strip() for key in keys]
    for header in said:
        kind, _, secret = header.partition(" ")
        if takes_basic and kind.lower() == "basic":
            kind, secret = "bearer", _password(secret)
        if kind.lower() != "bearer" or not secret.strip():
            raise InvalidApiKey(f"Authorization: must be {ways}, once")
        secrets.append(secret.strip())
    if len(said) > 1 or len(keys) > 1 or len(set(secrets)) > 1:
        raise InvalidApiKey(
            f"Authorization and {API_KEY}: each must be sent once; if both are, they must have the same key"
        )
    return secrets[0]


def _password(credentials: str) -> str:
    """Returns the password of `user:password` in base64 (RFC 7617), and nothing for what is not that."""
    try:
        return b64decode(credentials.strip(), validate=True).decode().partition(":")[2]
    except ValueError:
        return ""
