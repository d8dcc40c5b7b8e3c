"""Small random pipelines in the real layouts, with weights strong enough that the prompt changes the picture."""

from tests.tiny import allegro as _allegro
from tests.tiny import animatediff as _animatediff
from tests.tiny import auraflow as _auraflow
from tests.tiny import bria_fibo as _bria_fibo
from tests.tiny import chroma as _chroma
from tests.tiny import cogvideox as _cogvideox
from tests.tiny import cogview4 as _cogview4
from tests.tiny import cosmos as _cosmos
from tests.tiny import easyanimate as _easyanimate
from tests.tiny import ernie_image as _ernie_image
from tests.tiny import flux as _flux
from tests.tiny import flux2 as _flux2
from tests.tiny import flux_like as _flux_like
from tests.tiny import helios as _helios
from tests.tiny import hidream as _hidream
from tests.tiny import hunyuan_glyph as _hunyuan_glyph
from tests.tiny import hunyuan_video as _hunyuan_video
from tests.tiny import hunyuandit as _hunyuandit
from tests.tiny import ideogram4 as _ideogram4
from tests.tiny import joyimage as _joyimage
from tests.tiny import kandinsky3 as _kandinsky3
from tests.tiny import kandinsky5 as _kandinsky5
from tests.tiny import kandinsky6 as _kandinsky6
from tests.tiny import kolors as _kolors
from tests.tiny import krea2 as _krea2
from tests.tiny import latte as _latte
from tests.tiny import ltx as _ltx
from tests.tiny import ltx2 as _ltx2
from tests.tiny import lumina2 as _lumina2
from tests.tiny import lumina_next as _lumina_next
from tests.tiny import mochi as _mochi
from tests.tiny import motif_video as _motif_video
from tests.tiny import nucleus_image as _nucleus_image
from tests.tiny import pixart as _pixart
from tests.tiny import prx as _prx
from tests.tiny import qwen_image as _qwen_image
from tests.tiny import qwen_image21 as _qwen_image21
from tests.tiny import sana as _sana
from tests.tiny import sana_video as _sana_video
from tests.tiny import sd3 as _sd3
from tests.tiny import skyreels as _skyreels
from tests.tiny import unet as _unet
from tests.tiny import wan as _wan
from tests.tiny import z_image as _z_image
from tests.tiny.common import Case
from tests.tiny.flux import flux
from tests.tiny.unet import sd, sdxl

__all__ = ["CASES", "Case", "flux", "sd", "sdxl"]

CASES: tuple[Case, ...] = (
    *_flux.CASES,
    *_unet.CASES,
    *_chroma.CASES,
    *_sd3.CASES,
    *_pixart.CASES,
    *_wan.CASES,
    *_sana.CASES,
    *_hunyuan_video.CASES,
    *_kolors.CASES,
    *_flux2.CASES,
    *_hunyuandit.CASES,
    *_skyreels.CASES,
    *_hunyuan_glyph.CASES,
    *_qwen_image.CASES,
    *_cogview4.CASES,
    *_ltx.CASES,
    *_auraflow.CASES,
    *_cogvideox.CASES,
    *_flux_like.CASES,
    *_cosmos.CASES,
    *_kandinsky5.CASES,
    *_krea2.CASES,
    *_mochi.CASES,
    *_sana_video.CASES,
    *_lumina_next.CASES,
    *_ltx2.CASES,
    *_hidream.CASES,
    *_prx.CASES,
    *_allegro.CASES,
    *_latte.CASES,
    *_helios.CASES,
    *_qwen_image21.CASES,
    *_lumina2.CASES,
    *_animatediff.CASES,
    *_motif_video.CASES,
    *_easyanimate.CASES,
    *_z_image.CASES,
    *_kandinsky3.CASES,
    *_ernie_image.CASES,
    *_nucleus_image.CASES,
    *_bria_fibo.CASES,
    *_kandinsky6.CASES,
    *_joyimage.CASES,
    *_ideogram4.CASES,
)
