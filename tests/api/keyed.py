"""API keys of two tenants and of an operator, and clients that send them."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

import httpx

from app.auth import ApiKey, Scope
from app.auth.api_key import digest
from app.settings import Settings

READ, GENERATE, ADMIN = Scope.READ, Scope.GENERATE, Scope.ADMIN

KEYS = (
    ApiKey(id="alice", tenant="a", sha256=digest("alice")),
    ApiKey(id="alice-reads", tenant="a", sha256=digest("alice-reads"), scopes=frozenset({READ})),
    ApiKey(id="alice-sends", tenant="a", sha256=digest("alice-sends"), scopes=frozenset({GENERATE})),
    ApiKey(id="bob", tenant="b", sha256=digest("bob")),
    ApiKey(id="operator", tenant="o", sha256=digest("operator"), scopes=frozenset(Scope)),
)
IDS = [key.id for key in KEYS]


def keyed(settings: Settings, **limits: int) -> Settings:
    """These settings with the keys above; alice's has the limits."""
    alice, *others = KEYS
    return settings.model_copy(update={"api_keys": (alice.model_copy(update=limits), *others)})


def by(key_id: str) -> Mapping[str, str]:
    return MappingProxyType({"authorization": f"Bearer {key_id}"})


def job_of(answer: httpx.Response) -> str:
    assert answer.status_code in (200, 202), answer.text
    return str(answer.json()["id"])
