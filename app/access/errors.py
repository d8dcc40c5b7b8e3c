from __future__ import annotations


class KeysError(Exception):
    """A file of keys that cannot be used, or a key that cannot be added to it; the message is one line."""
