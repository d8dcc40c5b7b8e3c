"""`nag-server generate`: one picture or video from a running server."""

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

FORMATS = {".png": "png", ".jpg": "jpeg", ".jpeg": "jpeg", ".webp": "webp", ".mp4": "mp4"}


def generate(arguments: argparse.Namespace, settings: Settings) -> None:
    """Asks, shows the steps, writes the file and says what was used. Raises ClientError, OSError."""
    out: Path | None = arguments.out
    if out is not None and out.suffix.lower() not in FORMATS:
        raise ClientError(f"{out}: the name must end in {', '.join(FORMATS)}")
    if out is not None and not out.parent.is_dir():
        raise ClientError(f"{out}: there is no folder {out.parent}")
    with Client(arguments.url or settings.url, settings.api_key) as client, _progress() as progress:
        task = progress.add_task("sending", total=None)

        def show(job: dict[str, Any]) -> None:
            steps = job["progress"]
            progress.update(
                task,
                description=job["status"].replace("_", " "),
                total=steps["steps"],
                completed=steps["steps"] if job["status"] == "completed" else steps["step"],
            )

        job = client.generate(_body(arguments, None if out is None else FORMATS[out.suffix.lower()]), show)
        out = out or Path(f"out.{job['request']['output_format']}")
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


def _body(arguments: argparse.Namespace, output_format: str | None) -> dict[str, Any]:
    """What was said on the command line; what was not is left to the server."""
    names = ("model", "seed", "num_inference_steps", "guidance_scale", "width", "height", "num_frames", "fps")
    body = {"prompt": arguments.prompt, "negative_prompt": arguments.negative, "output_format": output_format}
    body |= {name: getattr(arguments, name) for name in names}
    numbers = {name: value for name in (*NAG_BOUNDS, "method") if (value := getattr(arguments, name)) is not None}
    if numbers:
        body["nag"] = numbers
    if arguments.loras:
        body["loras"] = arguments.loras
    return {name: value for name, value in body.items() if value is not None}


def _report(job: dict[str, Any], out: Path) -> None:
    nag, times = job["nag"], job["timings"]
    used = ", ".join(f"{name} {nag[name]:g}" for name in NAG_BOUNDS if nag[name] is not None)
    inference_ms = times["encode_ms"] + times["denoise_ms"] + times["decode_ms"]
    print(f"{out}  {_size(job['request'])}, model {job['model']}")
    print(f"seed     {job['seed']}")
    print("nag      " + (f"applied: {used}" if nag["applied"] else f"not applied: {nag['reason']}"))
    for lora in job["loras"]:
        print(f"lora     {lora['id']} {lora['scale']:g}")
    print(f"queue    {times['queue_ms']:.1f} ms")
    print(
        f"compute  {inference_ms:.1f} ms (encode {times['encode_ms']:.1f}, denoise {times['denoise_ms']:.1f}, "
        f"decode {times['decode_ms']:.1f})"
    )
    for warning in job["warnings"]:
        print(f"warning  {warning}")


def _size(used: dict[str, Any]) -> str:
    size, frames, fps = f"{used['width']}x{used['height']}", used["num_frames"], used["fps"]
    return size if frames is None else f"{size}, {frames} frames at {fps} a second ({frames / fps:g} s)"
