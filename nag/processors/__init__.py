"""Attention processors that guide: each finds Z+ and Z− in its layout and calls the formula once."""

from nag.processors.cross import CrossAttentionProcessor
from nag.processors.guided import GuidedProcessor
from nag.processors.joint import JointAttentionProcessor
from nag.processors.reference_flux import ReferenceFluxProcessor
from nag.processors.wan_split import WanSplitProcessor

__all__ = [
    "CrossAttentionProcessor",
    "GuidedProcessor",
    "JointAttentionProcessor",
    "ReferenceFluxProcessor",
    "WanSplitProcessor",
]
