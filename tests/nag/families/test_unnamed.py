"""Models of diffusers that denoise and belong to no family: each has a reason."""

from __future__ import annotations

import importlib
import inspect
import pkgutil

from diffusers import ModelMixin
from diffusers.models import transformers, unets

from nag.families import registered_families

#: By the name of the class.
UNNAMED = {
    **dict.fromkeys(
        (
            "DiTTransformer2DModel",
            "Kandinsky6SRTransformer3DModel",
            "RFD4ProteinaTransformer",
            "T5FilmDecoder",
            "UNet1DModel",
            "UNet2DModel",
            "UNetSpatioTemporalConditionModel",
        ),
        "reads no text prompt",
    ),
    **dict.fromkeys(
        (
            "DreamLiteTransformer2DModel",
            "MiniMaxMusic3RVQDepthDecoder",
            "MotionAdapter",
            "Transformer2DModel",
            "TransformerTemporalModel",
        ),
        "is a part of other models",
    ),
    "PriorTransformer": "makes an image's embedding, not an image",
    "UVit2DModel": "fills in tokens of a codebook; diffusers has deprecated its pipelines",
    "I2VGenXLUNet": "attends to text and image in one softmax; diffusers has deprecated its pipeline",
    "StableCascadeUNet": "is two models in turn, one of which reads pooled text alone",
}


def test_every_denoiser_of_diffusers_is_one_of_a_family_or_has_a_reason_not_to_be() -> None:
    named = {name for family in registered_families() for name in family.denoiser_types}
    found = set()
    for package in (transformers, unets):
        for module in pkgutil.iter_modules(package.__path__):
            name = f"{package.__name__}.{module.name}"
            kinds = filter(inspect.isclass, vars(importlib.import_module(name)).values())
            found |= {kind for kind in kinds if issubclass(kind, ModelMixin) and kind.__module__ == name}
    unnamed = {kind.__name__ for kind in found if not named & {base.__name__ for base in kind.__mro__}}
    assert unnamed <= UNNAMED.keys()
