from __future__ import annotations

import pytest

from tests import tiny
from tests.nag.support import quiet

MAKERS = {"flux": tiny.flux, "sd": tiny.sd, "sdxl": tiny.sdxl}


@pytest.fixture(scope="module", params=list(MAKERS))
def pipe(request):
    return quiet(MAKERS[request.param]())


@pytest.fixture(scope="module")
def flux():
    return quiet(tiny.flux())


@pytest.fixture(scope="module", params=["sd", "sdxl"])
def unet_pipe(request):
    return quiet(MAKERS[request.param]())
