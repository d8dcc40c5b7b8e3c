"""Writes openapi.json: the description of this version of the service."""

from __future__ import annotations

import json
from pathlib import Path

from app.api.server import create_app
from app.settings import Settings

#: Committed, for those who make a client without a server at hand.
FILE = Path(__file__).with_name("openapi.json")


def text() -> str:
    return json.dumps(create_app(Settings()).openapi(), indent=2, ensure_ascii=False) + "\n"


if __name__ == "__main__":
    FILE.write_text(text(), encoding="utf-8")
    print(FILE)
