"""`nag-server loras list`, `loras add` and `loras delete`: the LoRAs of a running server."""

from __future__ import annotations

import argparse
from typing import Any

from app.cli.client import Client
from app.settings import Settings

__all__ = ["loras"]

#: Options of `add` that the form calls the same.
FIELDS = (
    "id", "base", "trigger_words", "scale_default", "scale_min", "scale_max", "description", "licence", "shared",
)  # fmt: skip


def loras(arguments: argparse.Namespace, settings: Settings) -> None:
    """Raises ClientError, OSError."""
    with Client(arguments.url or settings.url, settings.api_key) as client:
        if arguments.action == "list":
            for lora in client.loras(arguments.model):
                print(*_line(lora), sep="\t")
        elif arguments.action == "add":
            fields = {name: getattr(arguments, name) for name in FIELDS}
            form = {name: str(value) for name, value in fields.items() if value not in (None, False)}
            print(*_line(client.add_lora(arguments.file, form)), sep="\t")
        else:
            for name in arguments.ids:
                client.delete_lora(name)
                print(name)


def _line(lora: dict[str, Any]) -> tuple[str, ...]:
    scale = lora["scale"]
    weights = f"{scale['default']:g} ({scale['min']:g} to {scale['max']:g})"
    return lora["id"], lora["origin"], lora["base"], weights, ", ".join(lora["trigger_words"])
