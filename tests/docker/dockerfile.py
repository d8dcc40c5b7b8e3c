"""The Dockerfile as a builder reads it, as far as this one goes: stages, and what they tell the engine to run."""

from __future__ import annotations

import json
import re
import shlex
from dataclasses import dataclass, field, replace
from pathlib import Path

ROOT = Path(__file__).parents[2]
FILE = ROOT / "Dockerfile"


@dataclass(frozen=True)
class Copy:
    sources: tuple[str, ...]
    target: str
    stage: str | None  # absent: from the build context


@dataclass(frozen=True)
class Stage:
    """Its own instructions behind those of the stage it starts from."""

    parent: str
    environment: dict[str, str] = field(default_factory=dict)
    arguments: tuple[str, ...] = ()
    user: str = "root"
    folder: str = "/"
    entrypoint: tuple[str, ...] = ()
    command: tuple[str, ...] = ()
    healthcheck: tuple[str, ...] = ()
    volumes: tuple[str, ...] = ()
    ports: tuple[int, ...] = ()
    copies: tuple[Copy, ...] = ()
    runs: tuple[str, ...] = ()


def load() -> dict[str, Stage]:
    """Every stage by its name."""
    stages: dict[str, Stage] = {}
    arguments: dict[str, str] = {}
    name = ""
    for instruction, rest in _instructions(FILE.read_text()):
        if instruction == "ARG" and not stages:
            argument, _, value = rest.partition("=")
            arguments[argument] = value
        elif instruction == "FROM":
            image, _, name = re.fullmatch(r"(\S+)( AS (\S+))", rest).groups()
            image = re.sub(r"\$\{(\w+)\}", lambda match: arguments[match[1]], image)
            stages[name] = replace(stages[image], parent=image) if image in stages else Stage(image)
        else:
            stages[name] = _after(stages[name], instruction, rest)
    return stages


def base(stages: dict[str, Stage], name: str) -> str:
    """The image that a stage starts from in the end."""
    while name in stages:
        name = stages[name].parent
    return name


def _instructions(text: str) -> list[tuple[str, str]]:
    lines = [line for line in text.splitlines() if line.strip() and not line.lstrip().startswith("#")]
    joined = re.sub(r"\s*\\\n\s*", " ", "\n".join(lines))
    return [(line.split(" ", 1)[0], line.split(" ", 1)[1]) for line in joined.splitlines()]


def _after(stage: Stage, instruction: str, rest: str) -> Stage:
    match instruction:
        case "ENV":
            set_ = dict(each.split("=", 1) for each in shlex.split(rest))
            old = stage.environment
            return replace(
                stage, environment=old | {k: v.replace("$PATH", old.get("PATH", "$PATH")) for k, v in set_.items()}
            )
        case "ARG":
            return replace(stage, arguments=(*stage.arguments, rest))
        case "USER":
            return replace(stage, user=rest)
        case "WORKDIR":
            return replace(stage, folder=rest)
        case "ENTRYPOINT":
            return replace(stage, entrypoint=tuple(json.loads(rest)))
        case "CMD":
            return replace(stage, command=tuple(json.loads(rest)))
        case "HEALTHCHECK":
            return replace(stage, healthcheck=tuple(json.loads(rest.partition("CMD ")[2])))
        case "VOLUME":
            return replace(stage, volumes=tuple(json.loads(rest)))
        case "EXPOSE":
            return replace(stage, ports=(*stage.ports, int(rest)))
        case "RUN":
            return replace(stage, runs=(*stage.runs, rest))
        case "COPY":
            words = rest.split()
            from_ = words.pop(0).removeprefix("--from=") if words[0].startswith("--from=") else None
            return replace(stage, copies=(*stage.copies, Copy(tuple(words[:-1]), words[-1], from_)))
        case "SHELL":
            return stage
    raise ValueError(f"{instruction} is not understood here")
