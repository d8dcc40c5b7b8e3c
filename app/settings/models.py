"""Settings of the models that are served, and of how requests name them."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from app.settings.types import OptionalCommaList, SettingsGroup

__all__ = ["ModelSettings"]


class ModelSettings(SettingsGroup):
    catalog: Path | None = None
    """TOML file of models that adds to the built-in ones. An entry replaces the built-in one of the same id."""

    models: OptionalCommaList[str] = None
    """Comma-separated ids of the models to serve. Default: the embedded models and those of NAG_CATALOG."""

    aliases: OptionalCommaList[str] = None
    """Comma-separated further names of models, such as `dall-e-3` or `dall-e-3=flux-dev`; `none` for no alias.
    Default: the names that popular clients have built in.
    """

    strict: bool = True
    """Whether a request that asks for what its model cannot do is refused. `false`: that part is left out with a
    warning, unless the request or its API key is strict.
    """

    response_format: Literal["b64_json", "url"] = "b64_json"
    """How images are returned, `b64_json` or `url`, if neither the request nor its alias says it."""
