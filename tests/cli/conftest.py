"""The commands speak to the API that its own tests speak to."""

from tests.api.conftest import api, worker

__all__ = ["api", "worker"]
