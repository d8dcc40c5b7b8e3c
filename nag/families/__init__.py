"""Model families, one file each, found by what the pipeline's denoiser is; subclasses count."""

from __future__ import annotations

from typing import Any

from nag.errors import UnsupportedPipeline
from nag.families.allegro import Allegro
from nag.families.animatediff import AnimateDiff
from nag.families.auraflow import AuraFlow
from nag.families.bria_fibo import BriaFibo
from nag.families.chroma import Chroma
from nag.families.cogvideox import CogVideoX
from nag.families.cogview4 import CogView4
from nag.families.cosmos import Cosmos
from nag.families.dreamlite import DreamLite
from nag.families.easyanimate import EasyAnimate
from nag.families.ernie_image import ErnieImage
from nag.families.family import Family
from nag.families.flux import Flux
from nag.families.flux2 import Flux2
from nag.families.flux_like import Bria, LongCatImage, OvisImage
from nag.families.helios import Helios
from nag.families.hidream import HiDream
from nag.families.hunyuan import HunyuanImage, HunyuanVideo, HunyuanVideo15
from nag.families.hunyuandit import HunyuanDiT
from nag.families.ideogram4 import Ideogram4
from nag.families.joyimage import JoyImageEdit, JoyImageEditPlus
from nag.families.kandinsky3 import Kandinsky3
from nag.families.kandinsky5 import Kandinsky5
from nag.families.kandinsky6 import Kandinsky6
from nag.families.kolors import Kolors
from nag.families.krea2 import Krea2
from nag.families.latte import Latte
from nag.families.ltx import LTXVideo
from nag.families.ltx2 import LTX2
from nag.families.lumina2 import Lumina2
from nag.families.lumina_next import LuminaNext
from nag.families.mochi import Mochi
from nag.families.motif_video import MotifVideo
from nag.families.nucleus_image import NucleusImage
from nag.families.pixart import PixArt
from nag.families.prx import PRX
from nag.families.qwen_image import QwenImage
from nag.families.qwen_image21 import QwenImage21
from nag.families.refused import Flux3, GlmImage, OmniGen
from nag.families.sana import Sana, SanaVideo
from nag.families.sd3 import StableDiffusion3
from nag.families.skyreels import SkyReelsV2
from nag.families.unet import SDXL, StableDiffusion
from nag.families.wan import Wan
from nag.families.z_image import ZImage

__all__ = ["FAMILIES", "Family", "family_of"]

#: Tried in order; the first that matches is taken.
FAMILIES: tuple[Family, ...] = (
    Flux(),
    DreamLite(),
    Kolors(),
    SDXL(),
    StableDiffusion(),
    Chroma(),
    StableDiffusion3(),
    PixArt(),
    Wan(),
    HunyuanVideo(),
    HunyuanImage(),
    HunyuanVideo15(),
    Flux2(),
    HunyuanDiT(),
    SkyReelsV2(),
    QwenImage(),
    CogView4(),
    LTXVideo(),
    AuraFlow(),
    CogVideoX(),
    LongCatImage(),
    OvisImage(),
    Bria(),
    Cosmos(),
    Kandinsky5(),
    Krea2(),
    Mochi(),
    Sana(),
    SanaVideo(),
    LuminaNext(),
    LTX2(),
    HiDream(),
    PRX(),
    Allegro(),
    Latte(),
    Helios(),
    QwenImage21(),
    Lumina2(),
    AnimateDiff(),
    MotifVideo(),
    EasyAnimate(),
    ZImage(),
    Kandinsky3(),
    ErnieImage(),
    NucleusImage(),
    BriaFibo(),
    Flux3(),
    GlmImage(),
    OmniGen(),
    Kandinsky6(),
    JoyImageEdit(),
    JoyImageEditPlus(),
    Ideogram4(),
)


def family_of(pipe: Any) -> Family:
    """The family of a pipeline.

    Raises:
        UnsupportedPipeline: none fits.

    """
    for family in FAMILIES:
        if family.matches(pipe):
            return family
    known = ", ".join(family.name for family in FAMILIES)
    raise UnsupportedPipeline(f"{type(pipe).__name__} is of no family known here ({known})")
