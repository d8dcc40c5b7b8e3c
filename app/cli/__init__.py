"""The console script `nag-server`. A user's mistake is one line on stderr, never a traceback."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from importlib.metadata import version

from pydantic import ValidationError

from app.cli.arguments import (
    add_bench_arguments,
    add_generate_arguments,
    add_lora_arguments,
    add_top_arguments,
    memory_sizes,
)
from app.cli.keys import add_arguments
from app.errors import CommandError
from app.settings import SECRET, Settings
from app.unknown_settings import unknown_settings

__all__ = ["main"]


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one command; returns its exit status: 0, 1 for a failure, 2 for a wrong call or setting, 130 for Ctrl-C."""
    arguments = _parser().parse_args(argv)
    try:
        settings = Settings()
    except ValidationError as exc:
        for error in exc.errors(include_url=False):
            name = f"NAG_{str(error['loc'][0]).upper()}"
            shown = "…" if error["loc"][0] in SECRET else error["input"]
            message = error["msg"].removeprefix("Value error, ").replace("Input should be", "must be")
            _complain(f"{name}={shown}: {message}")
        return 2
    for warning in unknown_settings(os.environ).values():
        _complain(f"warning: {warning}")
    try:
        return _run(arguments, settings)
    except KeyboardInterrupt:
        return 130
    except CommandError as exc:
        _complain(str(exc))
        return 1
    except OSError as exc:
        _complain(f"{exc.filename}: {exc.strerror}" if exc.filename else exc.strerror or str(exc))
        return 1


def _run(arguments: argparse.Namespace, settings: Settings) -> int:
    # Each command imports its own part: only a worker needs torch, and `generate` needs no server.
    match arguments.command:
        case "up":
            from app.supervisor import up

            return up(settings, insecure=arguments.insecure)
        case "api":
            from app.api.server import serve

            serve(settings, insecure=arguments.insecure)
        case "worker":
            from app.worker.process import main as work

            return work(settings, arguments.place)
        case "models" if arguments.action == "list":
            from app.cli.models import list_models

            list_models(settings)
        case "models" if arguments.action == "pull":
            from app.cli.models import pull_models

            return pull_models(settings, arguments.names)
        case "models" if arguments.action == "bench":
            from app.cli.model_bench import bench_model

            return bench_model(settings, arguments.name, arguments.images)
        case "models" if arguments.memory:
            from app.cli.models import fit_models

            return fit_models(settings, arguments.names, arguments.memory)
        case "models":
            from app.cli.models import check_models

            return check_models(settings, arguments.names, cache=arguments.cache)
        case "keys":
            from app.cli.keys import keys

            keys(arguments, settings)
        case "loras":
            from app.cli.loras import loras

            loras(arguments, settings)
        case "dead":
            from app.cli.dead import dead

            return dead(arguments, settings)
        case "top":
            from app.cli.top import top

            return top(arguments, settings)
        case "bench":
            from app.cli.bench import bench

            return bench(arguments, settings)
        case "generate":
            from app.cli.generate import generate

            generate(arguments, settings)
    return 0


def _complain(message: str) -> None:
    print(f"nag-server: {message}", file=sys.stderr)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="nag-server", description="Diffusion with Normalized Attention Guidance.")
    parser.add_argument("--version", action="version", version=version("nag-server"))
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for name, meaning in (("up", "queue, API and worker together, until Ctrl-C"), ("api", "the HTTP front end alone")):
        commands.add_parser(name, help=meaning).add_argument(
            "--insecure", action="store_true", help="serve everybody beyond this machine, without API keys"
        )
    worker = commands.add_parser("worker", help="one worker alone")
    worker.add_argument("--place", type=int, default=0, help=argparse.SUPPRESS)  # of a rank among those of this machine
    models = commands.add_parser("models", help="the catalog").add_subparsers(dest="action", required=True)
    models.add_parser("list", help="every known model, and which are served")
    check = models.add_parser("check", help="whether models fit the installed diffusers; nothing is downloaded")
    check.add_argument("names", nargs="*", metavar="NAME", help="absent: every known model, served or not")
    check.add_argument("--cache", action="store_true", help="also tell whose weights are on this machine")
    check.add_argument(
        "--memory", type=memory_sizes, metavar="SIZES",
        help="print the settings with which the weights fit devices, such as 24GB or 16GB,24GB,80GB",
    )  # fmt: skip
    pull = models.add_parser("pull", help="download the weights of models from the Hugging Face hub")
    pull.add_argument("names", nargs="*", metavar="NAME", help="absent: every model that is served")
    model_bench = models.add_parser(
        "bench", help="measure how long a model takes to load, to begin and to make an image"
    )
    model_bench.add_argument("name", metavar="NAME")
    model_bench.add_argument("--images", type=int, default=5, help="images of which the median is shown; default 5")
    dead = commands.add_parser("dead", help="jobs given up after several workers were lost with them")
    actions = dead.add_subparsers(dest="action", required=True)
    actions.add_parser("list", help="newest first")
    for action, meaning in (("replay", "queue them again under their ids"), ("drop", "strike them off the list")):
        actions.add_parser(action, help=meaning).add_argument("ids", nargs="+", metavar="ID")
    add_arguments(commands.add_parser("keys", help="API keys: the service stores their hashes alone"))
    add_lora_arguments(commands.add_parser("loras", help="LoRAs of a running server that requests may name"))
    add_top_arguments(commands.add_parser("top", help="queue, workers, rates and last errors, live"))
    add_bench_arguments(commands.add_parser("bench", help="a load run against a server, and its latencies"))
    add_generate_arguments(commands.add_parser("generate", help="one image or video from a running server"))
    return parser
