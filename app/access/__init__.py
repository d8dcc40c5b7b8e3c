"""Who may call: API keys as they are stored, which is by their hash alone."""

from app.access.errors import KeysError
from app.access.key import ApiKey, Scope

__all__ = ["ApiKey", "KeysError", "Scope"]
