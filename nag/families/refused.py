"""Models that are refused by name, each with the reason why the method does not fit them or cannot enter them."""

from __future__ import annotations

from typing import ClassVar, Literal

from nag.families.family import Family

__all__ = ["DreamLite", "GlmImage", "MiniMaxMusic3", "OmniGen"]


class _UnsupportedFamily(Family):
    """A family that is found by its denoiser and never guided."""

    attention: ClassVar[Literal["joint", "cross"]] = "joint"
    processors = ()
    cfg = "separate"


class DreamLite(_UnsupportedFamily):
    name = "DreamLite"
    models = "DreamLite, DreamLite-mobile"
    attention = "cross"
    denoiser_types = ("DreamLiteUNetModel",)
    refused = "its pipelines encode the prompt and CFG's negative as rows of one call, and tell nobody which is which"


class GlmImage(_UnsupportedFamily):
    name = "GLM-Image"
    models = "GLM-Image"
    denoiser_types = ("GlmImageTransformer2DModel",)
    refused = (
        "the prompt reaches the image as tokens that a language model adds to it; attention reads only the words in "
        "quotes that the image is to spell"
    )


class MiniMaxMusic3(_UnsupportedFamily):
    name = "MiniMax-Music 3"
    models = "MiniMax-Music 3"
    denoiser_types = ("MiniMaxMusic3Transformer1DModel",)
    refused = "a language model makes of the prompt a state for each frame of sound, and no attention reads the prompt"


class OmniGen(_UnsupportedFamily):
    name = "OmniGen"
    models = "OmniGen v1"
    denoiser_types = ("OmniGenTransformer2DModel",)
    refused = "prompt, images and the timestep share one causal sequence of a language model, padded on the left"
