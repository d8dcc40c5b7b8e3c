"""The settings of the service, by subject. Nothing else reads the environment."""

from __future__ import annotations

from app.settings.settings import ANY_ADDRESS, SECRET, Settings

__all__ = ["ANY_ADDRESS", "SECRET", "Settings"]
