"""Guiding attention processors, which find Z+ and Z− in the layout of their models and apply the formula."""

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
