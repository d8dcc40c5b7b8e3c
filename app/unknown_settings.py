"""Finds variables and files that look like settings and have no effect."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

from app.settings import Settings
from app.suggestions import did_you_mean

__all__ = ["unknown_settings"]

PREFIX = "NAG_"
#: Variables that docker-compose.yml and docker/secrets.sh read, and no process of the service.
OF_COMPOSE = frozenset(
    {
        "NAG_CPU_WORKERS", "NAG_CPU_WORKER_MEMORY", "NAG_GPUS", "NAG_GPU_WORKER_MEMORY", "NAG_GRAFANA_PORT",
        "NAG_PROMETHEUS_PORT", "NAG_REDIS_MEMORY", "NAG_SECRETS_FOLDER", "NAG_SHARED_MEMORY", "NAG_VERSION",
    }
)  # fmt: skip
#: Former settings, with the reason why they are gone.
REMOVED = {"NAG_BATCH_WINDOW_MS": "no request waits for others"}


def unknown_settings(environment: Mapping[str, str]) -> dict[str, str]:
    """Returns a warning for each variable, and each file of NAG_SECRETS_DIR, that is named like a setting and is none.

    A value is never part of it, since it may be a secret.
    """
    known = {f"{PREFIX}{field.upper()}" for field in Settings.model_fields}
    return {
        name: f"{name} is not a setting and has no effect{_advice(variable, known)}"
        for name, variable in _named_like_settings(environment)
        if variable not in known | OF_COMPOSE
    }


def _named_like_settings(environment: Mapping[str, str]) -> Iterator[tuple[str, str]]:
    """Yields variables and paths of files, each with the name of the variable that it would be."""
    files = Path(environment.get("NAG_SECRETS_DIR") or "/nowhere")
    for name in [*environment, *(str(path) for path in sorted(files.glob("*")) if path.is_file())]:
        variable = Path(name).name.upper()
        if variable.startswith(PREFIX):
            yield name, variable


def _advice(variable: str, known: set[str]) -> str:
    if variable in REMOVED:
        return f": it was removed, since {REMOVED[variable]}"
    # Without the prefix, which all of them share.
    suggestion = did_you_mean(variable.removeprefix(PREFIX), (name.removeprefix(PREFIX) for name in known))
    return suggestion.replace("mean ", f"mean {PREFIX}")
