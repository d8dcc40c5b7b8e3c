"""Generates the same seeds without and with a negative prompt over HTTP, and saves both rows as one image.

It starts a service of its own, looks for seeds whose unguided image is red and
sends each again with "a red shape" as the negative prompt.
"""

from __future__ import annotations

import io
import signal
import sys
import tempfile
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageDraw, ImageFont
from rich.console import Console
from rich.progress import track
from rich.table import Table

from app.cli.client import Client, ClientError
from app.cli.local_service import running

__all__ = ["compare", "is_red", "main"]

PROMPT, NEGATIVE = "a shape", "a red shape"
OUT = Path("out/demo/comparison.png")
SEEDS_SHOWN = 6
SEEDS_A_REQUEST = 8
SEEDS_SCANNED_MAX = 240
#: An object's pixel is further than this from the border's colour (sRGB 0 to 1, Euclidean).
OBJECT_DISTANCE = 0.25
UPSCALE, MARGIN_PX, LABEL_PX, FONT_PX = 4, 16, 44, 24

_console = Console()


@dataclass(frozen=True)
class Shot:
    """One image and the job that made it."""

    seed: int
    image: Image.Image
    job: dict[str, Any]


def main(out: Path = OUT) -> int:
    """Runs the demo in a temporary folder; 0 when the comparison is saved."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # a kill leaves nothing running either
    try:
        with tempfile.TemporaryDirectory(prefix="nag-demo-") as folder, ExitStack() as service:
            with _console.status("starting the service"):
                url = service.enter_context(running(Path(folder)))
            compare(url, out)
    except ClientError as exc:
        print(f"demo: {exc}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    return 0


def compare(url: str, out: Path) -> None:
    """Asks the server at `url` for both rows, prints what was used, saves the comparison. Raises ClientError."""
    with Client(url) as client:
        plain, red_count, scanned = _find_red(client)
        guided = [
            _ask(client, shot.seed, NEGATIVE)
            for shot in track(plain, f'"{PROMPT}" − "{NEGATIVE}"', console=_console, transient=True)
        ]
    _console.print(_table(plain, guided))
    out.parent.mkdir(parents=True, exist_ok=True)
    _grid(plain, guided).save(out)
    _console.print(f"{red_count} of the first {scanned} seeds are red without guidance; reds were chosen to be shown.")
    _console.print(f"Of the {len(plain)} shown, {_reds(plain)} are red without guidance and {_reds(guided)} with it.")
    _console.print(f"Saved {out}")


def is_red(image: Image.Image) -> bool:
    """Whether what stands out from the image's border is red: nearer to it than to orange or purple."""
    rgb = np.asarray(image.convert("RGB"), dtype=np.float32) / 255.0  # (H, W, 3)
    edges = [edge.reshape(-1, 3) for edge in (rgb[:2], rgb[-2:], rgb[:, :2], rgb[:, -2:])]
    inside = np.linalg.norm(rgb - np.median(np.concatenate(edges), axis=0), axis=2) > OBJECT_DISTANCE
    if not inside.any():
        return False
    red, green, blue = np.median(rgb[inside], axis=0)
    return bool(red > 0.65 and green < 0.33 and blue < 0.33)


def _find_red(client: Client) -> tuple[list[Shot], int, int]:
    """Seeds to show, reds first; how many were red; how many were tried. Each shot is asked for again, alone."""
    red, other = list[int](), list[int]()
    scanned = 0
    for first in track(range(0, SEEDS_SCANNED_MAX, SEEDS_A_REQUEST), f'"{PROMPT}"', console=_console, transient=True):
        job = client.generate({"prompt": PROMPT, "seed": first, "n": SEEDS_A_REQUEST})
        for index, output in enumerate(job["outputs"]):
            image = Image.open(io.BytesIO(client.result(job, index)))
            (red if is_red(image) else other).append(output["seed"])
        scanned += SEEDS_A_REQUEST
        if len(red) >= SEEDS_SHOWN:
            break
    return [_ask(client, seed, None) for seed in (red + other)[:SEEDS_SHOWN]], len(red), scanned


def _ask(client: Client, seed: int, negative: str | None) -> Shot:
    job = client.generate({"prompt": PROMPT, "negative_prompt": negative, "seed": seed})
    return Shot(seed, Image.open(io.BytesIO(client.result(job))).convert("RGB"), job)


def _reds(shots: list[Shot]) -> int:
    return sum(is_red(shot.image) for shot in shots)


def _table(plain: list[Shot], guided: list[Shot]) -> Table:
    table = Table("seed", "negative prompt", "NAG applied", "queue ms", "inference ms", title=f'"{PROMPT}"')
    for pair in zip(plain, guided, strict=True):
        for shot, negative in zip(pair, ("", NEGATIVE), strict=True):
            times = shot.job["timings"]
            inference_ms = times["encode_ms"] + times["denoise_ms"] + times["decode_ms"]
            applied = "yes" if shot.job["nag"]["applied"] else "no"
            table.add_row(str(shot.seed), negative, applied, f"{times['queue_ms']:.1f}", f"{inference_ms:.1f}")
    return table


def _grid(plain: list[Shot], guided: list[Shot]) -> Image.Image:
    """Returns an image of two rows of enlarged images: each row below its prompt, each image above its seed."""
    width, height = (UPSCALE * side for side in plain[0].image.size)
    step_x, row_px = width + MARGIN_PX, height + 2 * LABEL_PX
    canvas = Image.new("RGB", (MARGIN_PX + step_x * len(plain), MARGIN_PX + 2 * row_px), "white")
    draw, font = ImageDraw.Draw(canvas), ImageFont.load_default(FONT_PX)
    titles = (f"“{PROMPT}”", f"“{PROMPT}”  with NAG against  “{NEGATIVE}”")
    for row, (title, shots) in enumerate(zip(titles, (plain, guided), strict=True)):
        top = MARGIN_PX + row * row_px
        draw.text((MARGIN_PX, top), title, "black", font)
        for column, shot in enumerate(shots):
            left = MARGIN_PX + column * step_x
            enlarged = shot.image.resize((width, height), Image.Resampling.NEAREST)
            canvas.paste(enlarged, (left, top + LABEL_PX))
            draw.rectangle((left - 1, top + LABEL_PX - 1, left + width, top + LABEL_PX + height), outline="gray")
            draw.text((left, top + LABEL_PX + height + 6), f"seed {shot.seed}", "black", font)
    return canvas


if __name__ == "__main__":
    sys.exit(main())
