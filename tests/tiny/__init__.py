"""Small random pipelines in the real layouts, with weights strong enough that the prompt changes the picture."""

from tests.tiny import flux as _flux
from tests.tiny import unet as _unet
from tests.tiny.common import Case
from tests.tiny.flux import flux
from tests.tiny.unet import sd, sdxl

__all__ = ["CASES", "Case", "flux", "sd", "sdxl"]

CASES: tuple[Case, ...] = (*_flux.CASES, *_unet.CASES)
