from __future__ import annotations

from tests.api.conftest import api, worker

__all__ = ["api", "worker"]
