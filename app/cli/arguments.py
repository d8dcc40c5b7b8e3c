"""The arguments of `generate`, `top`, `bench` and `loras`, apart from what these import."""

from __future__ import annotations

import argparse
import math
import re
from pathlib import Path
from typing import Any, get_args

from app.catalog import Method
from app.jobs import InputRole

__all__ = ["add_bench_arguments", "add_generate_arguments", "add_lora_arguments", "add_top_arguments", "memory_sizes"]


def add_generate_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("prompt")
    parser.add_argument("--negative", metavar="TEXT", help="what to steer away from")
    parser.add_argument("--model", help="absent: the server's default, or the first that takes the files")
    parser.add_argument(
        "--image", type=Path, action="append", default=[], metavar="FILE",
        help="to start from: the model's first frame, reference or image to change; again for another reference",
    )  # fmt: skip
    parser.add_argument("--mask", type=Path, metavar="FILE", help="transparent where the image is regenerated")
    parser.add_argument(
        "--input", type=_input, action="append", default=[], dest="inputs", metavar="ROLE=FILE",
        help=f"to start from, in a role of the model: {', '.join(InputRole)}; again for another one",
    )  # fmt: skip
    parser.add_argument("--strength", type=_finite, help="share of the steps that is run on an image or a video")
    parser.add_argument("--seed", type=int, help="absent: drawn, and printed")
    parser.add_argument("--steps", type=int, dest="num_inference_steps")
    parser.add_argument("--guidance", type=_finite, dest="guidance_scale", help="true CFG; 1 is off")
    parser.add_argument("--width", type=int, help="pixels")
    parser.add_argument("--height", type=int, help="pixels")
    parser.add_argument("--frames", type=int, dest="num_frames", help="number of frames of a video")
    parser.add_argument("--fps", type=int, help="frames of a video shown per second")
    for name, meaning in (
        ("scale", "how far from the negative prompt; 1 is off"),
        ("tau", "most that the guided attention may grow, as a ratio of norms"),
        ("alpha", "share of the guided attention in the result, 0 to 1"),
        ("end", "share of the noise schedule that is guided, from the first step on, 0 to 1"),
        ("start", "share of the noise schedule before guidance begins, 0 to 1 and below the end"),
        ("scale-decay", "share of scale - 1 that is lost on the way to the end, 0 to 1"),
    ):
        parser.add_argument(f"--{name}", type=_finite, help=f"NAG: {meaning}")
    parser.add_argument("--method", choices=get_args(Method), help="NAG: the rule of guidance; absent: the model's")
    parser.add_argument("--anneal", dest="scale_decay", type=_finite, help=argparse.SUPPRESS)  # its former name
    parser.add_argument(
        "--lora", type=_lora_use, action="append", dest="loras", metavar="ID[=WEIGHT]", help="again for another one"
    )
    parser.add_argument(
        "--out", type=Path, help="file to write: .png, .jpg or .webp, of a video .mp4; absent: out.png or out.mp4"
    )
    parser.add_argument("--url", help="the server; absent: where the settings would start one")


def add_top_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--every", type=_rate, default=2.0, metavar="SECONDS", help="between two looks; default 2")
    parser.add_argument(
        "--once", action="store_true", help="print the tables once, with the rates of one interval, and exit"
    )


def add_bench_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("url", metavar="URL", help="the server")
    parser.add_argument("--requests", type=_count, default=50, help="number of requests; default 50")
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
    add.add_argument("--id", help="id by which requests use it; default: the file's name")
    add.add_argument("--trigger-words", metavar="WORDS", help="comma-separated words of a prompt that bring it out")
    for name, meaning in (("default", "if a request says none"), ("min", "at least"), ("max", "at most")):
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


def _lora_use(text: str) -> dict[str, Any]:
    """Returns an element of a request's `loras`, of `ID` or `ID=WEIGHT`. Raises ArgumentTypeError."""
    name, equals, weight = text.partition("=")
    try:
        use: dict[str, Any] = {"id": name, "scale": float(weight)} if equals else {"id": name}
    except ValueError:
        raise argparse.ArgumentTypeError(f"must be ID or ID=WEIGHT, got {text}") from None
    return use


def _input(text: str) -> tuple[InputRole, Path]:
    """Returns a file and its role, of `ROLE=FILE`. Raises ArgumentTypeError."""
    role, equals, path = text.partition("=")
    if role not in tuple(InputRole) or not equals or not path:
        message = f"must be ROLE=FILE with a role of {', '.join(InputRole)}, got {text}"
        raise argparse.ArgumentTypeError(message)
    return InputRole(role), Path(path)


def _finite(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise argparse.ArgumentTypeError(f"not a finite number: {text}")
    return value


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
