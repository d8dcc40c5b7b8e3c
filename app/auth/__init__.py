"""API keys: how they are stored, which is by their hash alone, and the file that holds them."""

from app.auth.api_key import ApiKey, Scope
from app.auth.keys_file import KeysError

__all__ = ["ApiKey", "KeysError", "Scope"]
