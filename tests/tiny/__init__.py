"""Small random pipelines in the real layouts, with weights strong enough that the prompt changes the picture."""

import importlib
import pkgutil
from typing import Any

from tests.tiny.calls import DenoiserCall
from tests.tiny.common import Case
from tests.tiny.flux import flux
from tests.tiny.unet import sd, sdxl

__all__ = ["CALLS", "CASES", "FAMILY_CASES", "Case", "DenoiserCall", "flux", "sd", "sdxl"]


def _gathered(name: str) -> tuple[Any, ...]:
    """Those of every module here; modules whose models an older diffusers lacks are left out."""
    cases: list[Any] = []
    for module in pkgutil.iter_modules(__path__):
        try:
            cases += getattr(importlib.import_module(f"{__name__}.{module.name}"), name, ())
        except ImportError as error:
            if (error.name or "").partition(".")[0] != "diffusers":
                raise
    return tuple(cases)


CASES: tuple[Case, ...] = _gathered("CASES")
#: Without the forms that a family has beside the first.
FAMILY_CASES = tuple(case for case in CASES if not any(case.name.startswith(f"{other.name}-") for other in CASES))
CALLS: tuple[DenoiserCall, ...] = _gathered("CALLS")
