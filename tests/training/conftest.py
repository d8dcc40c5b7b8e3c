from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch


@pytest.fixture(autouse=True)
def gradients() -> Iterator[None]:
    """Turns gradients on, whatever an earlier test of the process has left."""
    with torch.enable_grad():
        yield
