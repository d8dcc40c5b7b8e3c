"""Normalized Attention Guidance (arXiv 2505.21179) for diffusers pipelines."""

from nag.attachment import Attachment
from nag.errors import CannotJoin, InvalidParameter, NAGError, UnsupportedPipeline
from nag.families import register_family
from nag.formula import normalized_attention_guidance
from nag.guidance_state import Guidance
from nag.guide import attach, defaults_for, families, guide, supports
from nag.guided_step import RowGuidance
from nag.joining import JoinedCall, join, joining_key
from nag.modular_guider import NAGGuider
from nag.negative import NegativeEmbeds
from nag.params import NAGParams

__version__ = "0.1.0"
__all__ = [
    "Attachment",
    "CannotJoin",
    "Guidance",
    "InvalidParameter",
    "JoinedCall",
    "NAGError",
    "NAGGuider",
    "NAGParams",
    "NegativeEmbeds",
    "RowGuidance",
    "UnsupportedPipeline",
    "__version__",
    "attach",
    "defaults_for",
    "families",
    "guide",
    "join",
    "joining_key",
    "normalized_attention_guidance",
    "register_family",
    "supports",
]
