"""Small random pipelines in the real layouts, with weights strong enough that the prompt changes the picture."""

import importlib
import pkgutil
from typing import Any

import pytest

from tests.tiny.calls import DenoiserCall
from tests.tiny.common import Case
from tests.tiny.flux import flux
from tests.tiny.unet import sd, sdxl

__all__ = [
    "CALLS",
    "CASES",
    "FAMILY_CASES",
    "MISSING",
    "Case",
    "DenoiserCall",
    "find_call",
    "find_case",
    "flux",
    "sd",
    "sdxl",
]

_cases: list[Case] = []
_calls: list[DenoiserCall] = []
#: Modules here whose models this diffusers lacks; none in the tested release.
MISSING: list[str] = []

for _module in pkgutil.iter_modules(__path__):
    try:
        _found = importlib.import_module(f"{__name__}.{_module.name}")
    except ImportError as error:
        if (error.name or "").partition(".")[0] != "diffusers":
            raise
        MISSING.append(_module.name)
    else:
        _cases += getattr(_found, "CASES", ())
        _calls += getattr(_found, "CALLS", ())

CASES: tuple[Case, ...] = tuple(_cases)
#: Without the forms that a family has beside the first.
FAMILY_CASES = tuple(case for case in CASES if not any(case.name.startswith(f"{other.name}-") for other in CASES))
CALLS: tuple[DenoiserCall, ...] = tuple(_calls)


def find_case(name: str) -> Case:
    """Returns the case of this name. Skips the test if it may be one whose models this diffusers lacks."""
    return _find(name, CASES)


def find_call(name: str) -> DenoiserCall:
    """Returns the denoiser call of this name, as `find_case` does."""
    return _find(name, CALLS)


def _find(name: str, cases: tuple[Any, ...]) -> Any:
    found = next((case for case in cases if case.name == name), None)
    if found is None and MISSING:
        pytest.skip(f"this diffusers lacks the models of {', '.join(MISSING)}")
    assert found is not None, name
    return found
