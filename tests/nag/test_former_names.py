"""Former names of public attributes, which work with a warning for one minor version."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

import nag
from nag.families.flux import Flux
from nag.families.hunyuan import HunyuanVideo

EMBEDS = torch.ones(1, 2, 3)
EXTRA = {"gist": torch.zeros(1, 3)}


def test_extra_of_embeddings_was_more() -> None:
    with pytest.warns(DeprecationWarning, match="more is deprecated; use extra") as warned:
        embeds = nag.NegativeEmbeds(EMBEDS, more=EXTRA)
    assert warned[0].filename == __file__
    assert embeds.extra is EXTRA
    assert replace(embeds, mask=None).extra is EXTRA  # without a warning
    with pytest.warns(DeprecationWarning, match="more is deprecated; use extra") as warned:
        assert embeds.more is EXTRA
    assert warned[0].filename == __file__
    with pytest.raises(nag.InvalidParameter, match="more"):
        nag.NegativeEmbeds(EMBEDS, extra=EXTRA, more=EXTRA)


def test_notes_of_a_family_were_exact() -> None:
    with pytest.warns(DeprecationWarning, match="exact is deprecated; use notes") as warned:

        class PooledFlux(Flux):
            exact = "by the pooled prompt"

    assert warned[0].filename == __file__
    assert PooledFlux.notes == "by the pooled prompt"
    for family, expected in ((PooledFlux(), "by the pooled prompt"), (HunyuanVideo(), HunyuanVideo.notes or "yes")):
        with pytest.warns(DeprecationWarning, match="exact is deprecated; use notes") as warned:
            assert family.exact == expected
        assert warned[0].filename == __file__
