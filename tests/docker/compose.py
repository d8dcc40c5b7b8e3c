"""docker-compose.yml as an engine reads it: variables put in, anchors merged."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).parents[2]
FILE = ROOT / "docker-compose.yml"
VARIABLE = re.compile(r"\$(?:\$|\{(?P<name>\w+)(?::-(?P<default>[^}]*))?\})")


def load(environment: Mapping[str, str] | None = None) -> dict[str, Any]:
    """With these variables set and no others."""
    read: dict[str, Any] = _filled(yaml.safe_load(FILE.read_text()), environment or {})
    return read


def _filled(node: Any, environment: Mapping[str, str]) -> Any:
    if isinstance(node, dict):
        return {key: _filled(value, environment) for key, value in node.items()}
    if isinstance(node, list):
        return [_filled(each, environment) for each in node]
    return VARIABLE.sub(lambda match: _value(match, environment), node) if isinstance(node, str) else node


def _value(match: re.Match[str], environment: Mapping[str, str]) -> str:
    name = match["name"]
    if name is None:
        return "$"
    value = environment.get(name) or match["default"]
    assert value is not None, f"{name} is neither set nor given a default"
    return value


def seconds(duration: str) -> float:
    """`1m30s` and the like."""
    units = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0}
    return sum(float(number) * units[unit] for number, unit in re.findall(r"([\d.]+)(ms|s|m|h)", duration))
