"""The service that the examples and the code blocks of the documentation speak to."""

from __future__ import annotations

import base64
from collections.abc import Iterator
from unittest.mock import patch

import pytest

WEBHOOK_SECRET = f"whsec_{base64.b64encode(bytes(32)).decode()}"


@pytest.fixture(scope="session")
def embedded_service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The URL of a service with a worker of the embedded models, which sends webhooks to this machine."""
    from app.cli.local_service import running

    settings = {
        "NAG_WEBHOOK_SECRET": WEBHOOK_SECRET,
        "NAG_WEBHOOK_ALLOW": "127.0.0.0/8",
        "NAG_MODELS": "shapes-flux,shapes-wan",
        "NAG_WARM": "shapes-flux",
        "NAG_BATCH_SIZE": "4",  # measured in a few images, which previews are learnt from
    }
    with running(tmp_path_factory.mktemp("service"), settings=settings) as url:
        yield url


@pytest.fixture
def own_families() -> Iterator[None]:
    """Forgets the families that a test registers."""
    from nag.families import _FAMILIES

    with patch.dict(_FAMILIES):
        yield
