"""`nag-server generate`: one picture from a running server."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from app.catalog import NAG_BOUNDS
from app.cli.client import Client, ClientError
from app.settings import Settings

__all__ = ["generate"]

FORMATS = {".png": "png", ".jpg": "jpeg", ".jpeg": "jpeg", ".webp": "webp"}


def generate(arguments: argparse.Namespace, settings: Settings) -> None:
    """Asks, shows the steps, writes the picture and says what was used. Raises ClientError, OSError."""
    out: Path = arguments.out
    if out.suffix.lower() not in FORMATS:
        raise ClientError(f"{out}: the name must end in {', '.join(FORMATS)}")
    if not out.parent.is_dir():
        raise ClientError(f"{out}: there is no folder {out.parent}")
    with Client(arguments.url or settings.url) as client, _progress() as progress:
        task = progress.add_task("sending", total=None)

        def show(job: dict[str, Any]) -> None:
            steps = job["progress"]
            progress.update(
                task,
                description=job["status"].replace("_", " "),
                total=steps["steps"],
                completed=steps["steps"] if job["status"] == "completed" else steps["step"],
            )

        job = client.generate(_body(arguments, FORMATS[out.suffix.lower()]), show)
        out.write_bytes(client.result(job))
    _report(job, out)


def _progress() -> Progress:
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("steps"),
        TimeElapsedColumn(),
        console=Console(stderr=True),
    )


def _body(arguments: argparse.Namespace, output_format: str) -> dict[str, Any]:
    """What was said on the command line; what was not is left to the server."""
    names = ("model", "seed", "num_inference_steps", "guidance_scale", "width", "height")
    body = {"prompt": arguments.prompt, "negative_prompt": arguments.negative, "output_format": output_format}
    body |= {name: getattr(arguments, name) for name in names}
    numbers = {name: value for name in NAG_BOUNDS if (value := getattr(arguments, name)) is not None}
    if numbers:
        body["nag"] = numbers
    return {name: value for name, value in body.items() if value is not None}


def _report(job: dict[str, Any], out: Path) -> None:
    nag, times = job["nag"], job["timings"]
    used = ", ".join(f"{name} {nag[name]:g}" for name in NAG_BOUNDS if nag[name] is not None)
    inference_ms = times["encode_ms"] + times["denoise_ms"] + times["decode_ms"]
    print(f"{out}  {job['request']['width']}x{job['request']['height']}, model {job['model']}")
    print(f"seed     {job['seed']}")
    print("nag      " + (f"applied: {used}" if nag["applied"] else f"not applied: {nag['reason']}"))
    print(f"queue    {times['queue_ms']:.1f} ms")
    print(
        f"compute  {inference_ms:.1f} ms (encode {times['encode_ms']:.1f}, denoise {times['denoise_ms']:.1f}, "
        f"decode {times['decode_ms']:.1f})"
    )
    for warning in job["warnings"]:
        print(f"warning  {warning}")
