"""Is an instruction obeyed, and is a given first frame continued? The embedded models with reference images.

python -m benchmarks.references --model shapes-flux
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from diffusers import DiffusionPipeline, FluxKontextPipeline, WanImageToVideoPipeline
from numpy.typing import NDArray
from PIL import Image

import app
import nag
from benchmarks import report
from benchmarks.suppression.score import percent
from training.shapes.clips import FRAMES, Continuations
from training.shapes.edits import Edits, Instruction
from training.shapes.judge import Reading, read
from training.shapes.track import read_clips
from training.shapes.world import COLORS, Caption

__all__ = ["Continuation", "Edit", "draw_continuations", "draw_edits", "score_continuations", "score_edits"]

COUNT = 256
STEPS = 4
FIRST_SEED = 10_000
#: Other scenes than those of the training, which are drawn with seed 0.
WORLD_SEED = 77
_CALL = {"height": 64, "width": 64, "max_sequence_length": 16, "num_inference_steps": STEPS}
EDIT_CALL = {**_CALL, "guidance_scale": 0.0, "max_area": 64 * 64, "_auto_resize": False}
CLIP_CALL = {**_CALL, "guidance_scale": 1.0, "num_frames": FRAMES}
GUIDANCES: dict[str, dict[str, Any] | None] = {
    "none": None,
    "NAG": {},
    "NAG 5, α 0.5, decayed": {"scale": 5.0, "alpha": 0.5, "end": 0.5, "scale_decay": 1.0},
}


@dataclass(frozen=True)
class Edit:
    """An image, an instruction, and a negative prompt."""

    image: NDArray[np.uint8]
    before: Reading
    instruction: Instruction
    negative: Caption | None = None


@dataclass(frozen=True)
class Continuation:
    """A first frame, a caption, and a negative prompt."""

    image: NDArray[np.uint8]
    caption: Caption


def draw_edits(count: int, *, negatives: bool) -> list[Edit]:
    """Draws edits of every kind, or with `negatives` changes of color, of which one color is unwanted."""
    generator = torch.Generator().manual_seed(WORLD_SEED)
    edits = Edits.sample(count, generator)
    images = _to_bytes(edits.references())
    instructions = edits.captions(generator)
    drawn = []
    for image, before, instruction in zip(images, read(images), instructions, strict=True):
        if negatives:
            others = [color for color in COLORS if color != before.color]
            unwanted = others[int(torch.randint(len(others), (), generator=generator))]
            drawn.append(Edit(image, before, Instruction("color"), Caption(color=unwanted)))
        else:
            drawn.append(Edit(image, before, instruction))
    return drawn


def draw_continuations(count: int) -> list[Continuation]:
    """Draws first frames and captions that name the motion."""
    generator = torch.Generator().manual_seed(WORLD_SEED)
    clips = Continuations.sample(count, generator)
    captions = clips.captions(generator, drop=0.0)
    images = _to_bytes(clips.references())
    return [
        Continuation(image, Caption(shape=caption.shape, motion=caption.motion))
        for image, caption in zip(images, captions, strict=True)
    ]


def score_edits(edits: Sequence[Edit], readings: Sequence[Reading]) -> dict[str, float]:
    """Shares in [0, 1]: obeyed, the rest kept, clean, and the negative absent."""
    pairs = list(zip(edits, readings, strict=True))
    return {
        "obeyed": _share(edit.instruction.is_obeyed(edit.before, reading) for edit, reading in pairs),
        "kept": _share(edit.instruction.is_rest_kept(edit.before, reading) for edit, reading in pairs),
        "clean": _share(reading.clean for reading in readings),
        "absent": _share(edit.negative is None or not reading.shows(edit.negative) for edit, reading in pairs),
    }


def score_continuations(
    continuations: Sequence[Continuation], clips: Sequence[NDArray[np.uint8]], readings: Sequence[Reading]
) -> dict[str, float]:
    """Shares in [0, 1] of clips with the motion of the caption and of clean clips; and the mean distance (L1, in
    [0, 1]) of the first frame to the given image."""
    return {
        "motion": _share(
            reading.motion == continuation.caption.motion
            for continuation, reading in zip(continuations, readings, strict=True)
        ),
        "clean": _share(reading.clean for reading in readings),
        "first frame": float(
            np.mean(
                [
                    np.abs(clip[0].astype(float) - continuation.image).mean() / 255
                    for continuation, clip in zip(continuations, clips, strict=True)
                ]
            )
        ),
    }


def make_edits(
    pipe: Any, edits: Sequence[Edit], guidance: dict[str, Any] | None, batch: int = 32
) -> Iterator[NDArray[np.uint8]]:
    """Edits images (B, H, W, 3), batch by batch."""
    for start in range(0, len(edits), batch):
        part = edits[start : start + batch]

        def call(part: Sequence[Edit] = part, start: int = start) -> Any:
            return pipe(
                image=[Image.fromarray(edit.image) for edit in part],
                prompt=[str(edit.instruction) for edit in part],
                generator=[torch.Generator().manual_seed(FIRST_SEED + start + i) for i in range(len(part))],
                output_type="np",
                **EDIT_CALL,
            ).images

        yield _quantized(_guided(pipe, call, [str(edit.negative or "") for edit in part], guidance))


def make_clips(pipe: Any, continuations: Sequence[Continuation]) -> Iterator[NDArray[np.uint8]]:
    """Continues first frames to clips (1, F, H, W, 3): the pipeline takes one image per call."""
    for i, continuation in enumerate(continuations):
        frames = pipe(
            image=Image.fromarray(continuation.image),
            prompt=str(continuation.caption),
            generator=torch.Generator().manual_seed(FIRST_SEED + i),
            output_type="np",
            **CLIP_CALL,
        ).frames
        yield _quantized(frames)


def _guided(pipe: Any, call: Callable[[], Any], negatives: list[str], guidance: dict[str, Any] | None) -> Any:
    if guidance is None:
        return call()
    with nag.guide(pipe, negatives, **guidance):
        return call()


def _to_bytes(images: torch.Tensor) -> NDArray[np.uint8]:
    pixels: NDArray[np.uint8] = ((images + 1) * 127.5).round().byte().permute(0, 2, 3, 1).numpy()
    return pixels


def _quantized(images: Any) -> NDArray[np.uint8]:
    return (np.asarray(images) * 255).round().astype(np.uint8)


def _share(values: Any) -> float:
    return float(np.mean([bool(value) for value in values]))


def _rows_of_edits(pipe: Any, count: int) -> list[dict[str, Any]]:
    rows = []
    for task, guidances in (("edit", ["none"]), ("change the color, one unwanted", list(GUIDANCES))):
        edits = draw_edits(count, negatives=task != "edit")
        for name in guidances:
            images = np.concatenate(list(make_edits(pipe, edits, GUIDANCES[name])))
            rows.append({"task": task, "guidance": name, **score_edits(edits, list(read(images)))})
    return rows


def _rows_of_clips(pipe: Any, count: int) -> list[dict[str, Any]]:
    continuations = draw_continuations(count)
    clips = np.concatenate(list(make_clips(pipe, continuations)))
    scores = score_continuations(continuations, list(clips), list(read_clips(clips)))
    return [{"task": "continue a first frame", "guidance": "none", **scores}]


MODELS: dict[str, tuple[type[DiffusionPipeline], Callable[[Any, int], list[dict[str, Any]]]]] = {
    "shapes-flux": (FluxKontextPipeline, _rows_of_edits),
    "shapes-wan": (WanImageToVideoPipeline, _rows_of_clips),
}


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.references", description=__doc__)
    parser.add_argument("--model", choices=MODELS, default="shapes-flux")
    parser.add_argument("--folder", type=Path, help="a pipeline folder instead of the embedded one; stores no table")
    parser.add_argument("--count", type=int, default=COUNT, help="images or clips per row")
    arguments = parser.parse_args()
    pipeline, score = MODELS[arguments.model]
    folder = arguments.folder or Path(app.__file__).parent / "builtin" / arguments.model
    pipe: Any = pipeline.from_pretrained(folder, torch_dtype=torch.float32)
    pipe.set_progress_bar_config(disable=True)
    data = score(pipe, arguments.count)
    columns = list(data[0])
    rows = [
        [
            percent(value, arguments.count) if name not in ("task", "guidance", "first frame") else str(value)
            for name, value in row.items()
        ]
        for row in data
    ]
    title = f"References on {arguments.model}: {arguments.count} images or clips a row, {STEPS} steps, 95 % intervals"
    if arguments.folder is not None:
        print(report.markdown(columns, rows))
    else:
        report.write(f"references-{arguments.model}", title, columns, rows, data, report.machine())


if __name__ == "__main__":
    main()
