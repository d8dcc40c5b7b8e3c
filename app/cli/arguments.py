"""The arguments of `top`, `bench` and `loras`, apart from what these import."""

from __future__ import annotations

import argparse
import re
from pathlib import Path
from typing import Any

__all__ = ["add_bench_arguments", "add_lora_arguments", "add_top_arguments", "lora_use", "memory_sizes"]


def add_top_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--every", type=_rate, default=2.0, metavar="SECONDS", help="between two looks; default 2")
    parser.add_argument("--once", action="store_true", help="one picture, with the rates of one interval, and end")


def add_bench_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("url", metavar="URL", help="the server")
    parser.add_argument("--requests", type=_count, default=50, help="how many; default 50")
    parser.add_argument("--clients", type=_count, default=4, help="closed loop: so many, each waits for its answer")
    parser.add_argument("--rate", type=_rate, help="open loop instead: so many requests a second, answered or not")
    parser.add_argument("--limit-s", type=_rate, default=300.0, help="ends then at the latest; default 300")
    parser.add_argument("--model", help="absent: the server's default")
    parser.add_argument("--prompt", default="a shape")
    parser.add_argument("--negative", metavar="TEXT", help="what NAG steers away from")
    parser.add_argument("--steps", type=_count, dest="num_inference_steps")
    parser.add_argument("--width", type=_count, help="pixels")
    parser.add_argument("--height", type=_count, help="pixels")
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write the numbers there")


def add_lora_arguments(parser: argparse.ArgumentParser) -> None:
    actions = parser.add_subparsers(dest="action", required=True)
    listing = actions.add_parser("list", help="those that requests may name: id, origin, base, weights, trigger words")
    listing.add_argument("--model", help="absent: of every model")
    add = actions.add_parser("add", help="upload one: a safetensors file")
    add.add_argument("file", type=Path, metavar="FILE")
    add.add_argument("--base", required=True, metavar="MODEL", help="the model that it was trained for")
    add.add_argument("--id", help="what requests name it by; absent: the file's name")
    add.add_argument("--trigger-words", metavar="WORDS", help="what a prompt says to bring it out, with commas")
    for name, meaning in (("default", "where a request says none"), ("min", "at least"), ("max", "at most")):
        add.add_argument(f"--scale-{name}", type=float, metavar="WEIGHT", help=f"its weight {meaning}")
    add.add_argument("--description", metavar="TEXT")
    add.add_argument("--licence", metavar="TEXT")
    add.add_argument("--shared", action="store_true", help="for all tenants; needs a key with the scope admin")
    delete = actions.add_parser("delete", help="remove uploaded ones and their files")
    delete.add_argument("ids", nargs="+", metavar="ID")
    for action in (listing, add, delete):
        action.add_argument("--url", help="the server; absent: where the settings would start one")


def memory_sizes(text: str) -> tuple[float, ...]:
    """Gigabytes, of `24GB` or several with commas. Raises ArgumentTypeError."""
    sizes = re.fullmatch(r"([0-9]+(\.[0-9]+)?(GB)?)(,[0-9]+(\.[0-9]+)?(GB)?)*", text, re.IGNORECASE)
    gigabytes = tuple(float(size.upper().removesuffix("GB")) for size in text.split(",")) if sizes else ()
    if not gigabytes or not all(gigabytes):
        raise argparse.ArgumentTypeError(f"must be sizes such as 24GB or 16GB,24GB, got {text}")
    return gigabytes


def lora_use(text: str) -> dict[str, Any]:
    """An element of a request's `loras`, of `ID` or `ID=WEIGHT`. Raises ArgumentTypeError."""
    name, equals, weight = text.partition("=")
    try:
        use: dict[str, Any] = {"id": name, "scale": float(weight)} if equals else {"id": name}
    except ValueError:
        raise argparse.ArgumentTypeError(f"must be ID or ID=WEIGHT, got {text}") from None
    return use


def _count(text: str) -> int:
    value = int(text)
    if not 1 <= value <= 1_000_000:
        raise argparse.ArgumentTypeError(f"must be 1 to 1000000, not {text}")
    return value


def _rate(text: str) -> float:
    value = float(text)
    if not 0 < value <= 100_000:
        raise argparse.ArgumentTypeError(f"must be above 0 and at most 100000, not {text}")
    return value
