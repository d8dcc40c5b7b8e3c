"""Of `top` and `bench`, apart from what they import."""

from __future__ import annotations

import argparse
from pathlib import Path

__all__ = ["add_bench_arguments", "add_top_arguments"]


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
