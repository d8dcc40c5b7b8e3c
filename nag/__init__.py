"""Normalized Attention Guidance (arXiv 2505.21179) for diffusers pipelines."""

from nag.errors import InvalidParameter, NAGError, UnsupportedPipeline
from nag.formula import normalized_attention_guidance
from nag.guide import defaults_for, families, guide, supports
from nag.params import NAGParams
from nag.session import Guidance

__all__ = [
    "Guidance",
    "InvalidParameter",
    "NAGError",
    "NAGParams",
    "UnsupportedPipeline",
    "defaults_for",
    "families",
    "guide",
    "normalized_attention_guidance",
    "supports",
]
