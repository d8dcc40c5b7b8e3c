"""The paper's own rows, for the models of the catalog that it has."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["ROWS", "PaperRow"]


@dataclass(frozen=True)
class PaperRow:
    """CLIP Score, FID, PFID and ImageReward of arXiv 2505.21179, Table 1: COCO-5K, its negative prompt."""

    steps: int
    none: tuple[float, float, float, float]
    nag: tuple[float, float, float, float]


ROWS = {
    "sana-sprint": PaperRow(2, (31.4, 30.29, 37.56, 1.008), (31.9, 28.31, 33.29, 1.075)),
    "flux-schnell": PaperRow(4, (31.4, 25.47, 38.26, 1.029), (32.0, 24.46, 34.95, 1.099)),
    "sd35-large-turbo": PaperRow(8, (31.4, 29.97, 44.37, 0.944), (31.8, 29.81, 41.87, 1.118)),
    "flux-dev": PaperRow(25, (30.9, 31.04, 43.22, 1.066), (31.5, 28.11, 39.01, 1.166)),
    "sdxl-dmd2": PaperRow(4, (31.6, 24.79, 27.11, 0.876), (32.2, 23.32, 25.61, 0.960)),
    "sdxl-lightning": PaperRow(8, (31.1, 27.01, 34.02, 0.730), (31.8, 24.99, 31.70, 0.842)),
    "sdxl": PaperRow(25, (31.9, 23.25, 30.01, 0.791), (32.7, 20.90, 27.90, 0.906)),
}
