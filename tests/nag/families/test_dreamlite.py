from types import SimpleNamespace

import pytest
from diffusers import DreamLiteUNetModel

import nag


def test_dreamlite_is_refused_by_name_and_not_taken_for_stable_diffusion():
    unet = DreamLiteUNetModel.__new__(DreamLiteUNetModel)
    pipe = SimpleNamespace(unet=unet, encode_prompt=None, scheduler=SimpleNamespace(config={}))
    with pytest.raises(nag.UnsupportedPipeline, match="DreamLite cannot be guided"), nag.guide(pipe, "a"):
        pass
