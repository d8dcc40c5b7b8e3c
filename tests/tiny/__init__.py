"""Small random pipelines in the real layouts, with weights strong enough that the prompt changes the picture."""

import importlib
import pkgutil

from tests.tiny.common import Case
from tests.tiny.flux import flux
from tests.tiny.unet import sd, sdxl

__all__ = ["CASES", "FAMILY_CASES", "Case", "flux", "sd", "sdxl"]


def _cases() -> tuple[Case, ...]:
    """Of every module here; those whose models an older diffusers lacks are left out."""
    cases: list[Case] = []
    for module in pkgutil.iter_modules(__path__):
        try:
            cases += getattr(importlib.import_module(f"{__name__}.{module.name}"), "CASES", ())
        except ImportError as error:
            if error.name != "diffusers":
                raise
    return tuple(cases)


CASES = _cases()
#: Without the forms that a family has beside the first.
FAMILY_CASES = tuple(case for case in CASES if not any(case.name.startswith(f"{other.name}-") for other in CASES))
