"""The prompts, each with the negative prompt it is guided away from, from a file in one of the usual layouts."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

__all__ = ["NEGATIVE", "Prompt", "PromptFileError", "read"]

#: The paper's for Table 1, which took it over from NASA.
NEGATIVE = "Low resolution, blurry"


class PromptFileError(ValueError):
    """A file of prompts that cannot be read as one; names the place."""


@dataclass(frozen=True)
class Prompt:
    """What is asked for, and what it is guided away from."""

    text: str
    negative: str


def read(file: Path, negative: str) -> list[Prompt]:
    """Returns all prompts of a file; `negative` is for those that have none of their own.

    .txt: one a line. .csv: a header of prompt and, if wanted, negative. .jsonl: objects of the same keys.
    .json: a list of prompts, as HPDv2's are, or the captions of COCO, of which each image's first is taken.
    Raises PromptFileError.
    """
    kinds = {".txt": _lines, ".csv": _table, ".jsonl": _objects, ".json": _json}
    kind = kinds.get(file.suffix.lower())
    if kind is None:
        raise PromptFileError(f"{file}: must end in {', '.join(kinds)}")
    try:
        found = [Prompt(text.strip(), own or negative) for text, own in kind(file)]
    except (OSError, UnicodeDecodeError, json.JSONDecodeError) as error:
        raise PromptFileError(f"{file}: {error}") from error
    if not found:
        raise PromptFileError(f"{file}: holds no prompt")
    for number, prompt in enumerate(found):
        if not prompt.text:
            raise PromptFileError(f"{file}: prompt {number}, counted from 0, is empty")
    return found


def _lines(file: Path) -> Iterator[tuple[str, str | None]]:
    for line in file.read_text(encoding="utf-8").splitlines():
        if line.strip():
            yield line, None


def _table(file: Path) -> Iterator[tuple[str, str | None]]:
    with file.open(encoding="utf-8", newline="") as opened:
        for row in csv.DictReader(opened):
            yield _pair(file, row)


def _objects(file: Path) -> Iterator[tuple[str, str | None]]:
    for line in file.read_text(encoding="utf-8").splitlines():
        if line.strip():
            yield _pair(file, json.loads(line))


def _json(file: Path) -> Iterator[tuple[str, str | None]]:
    data = json.loads(file.read_text(encoding="utf-8"))
    if isinstance(data, list) and all(isinstance(text, str) for text in data):
        yield from ((text, None) for text in data)
        return
    try:
        captions = sorted(
            (annotation["image_id"], annotation["id"], annotation["caption"]) for annotation in data["annotations"]
        )
    except (KeyError, TypeError):
        raise PromptFileError(f"{file}: neither a list of prompts nor COCO's captions") from None
    images: set[Any] = set()
    for image, _, caption in captions:
        if image not in images:
            images.add(image)
            yield caption, None


def _pair(file: Path, row: Any) -> tuple[str, str | None]:
    if not isinstance(row, dict) or not {"prompt"} <= row.keys() <= {"prompt", "negative"}:
        raise PromptFileError(f"{file}: each prompt has the keys prompt and, if wanted, negative; not {row}")
    if not all(isinstance(text, str) for text in row.values()):
        raise PromptFileError(f"{file}: prompt and negative are texts, not {row}")
    return row["prompt"], row.get("negative")
