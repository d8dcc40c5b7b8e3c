"""Profiles of memory: settings by which the weights of a model fit a device, from its recorded size."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from diffusers import FluxTransformer2DModel, SD3Transformer2DModel

from app.catalog import Catalog, CatalogError, Model, Quantization, Size
from app.catalog.profiles import CAST_SHARE, DEVICE_SHARE, GB, GROUP_GB, fitting_changes, recorded_footprint
from app.loading.speed import skips_casting
from app.settings import Settings

MEMORIES_GB = (16, 24, 48, 80, 141)
KNOWN = Catalog.known(Settings())
SIZED = [name for name, entry in KNOWN.items() if entry.size is not None]


def catalog(folder: Path, text: str) -> dict[str, Model]:
    (folder / "mine.toml").write_text(text)
    return Catalog.known(Settings(catalog=folder / "mine.toml"))


def test_a_profile_sets_what_the_entry_does_not(tmp_path: Path) -> None:
    models = catalog(
        tmp_path,
        """
[models.small]
extends = "flux-dev"
profile = "24gb"

[models.smaller]
extends = "small"
profile = "16gb"

[models.stated]
extends = "flux-dev"
profile = "24gb"
offload = "group"

[models.large]
extends = "small"
profile = "80gb"
""",
    )
    cast = Quantization(method="layerwise-fp8", components=("transformer",))
    assert (models["small"].offload, models["small"].quantization) == ("model", cast)
    assert (models["smaller"].offload, models["smaller"].quantization) == ("group", None)
    assert (models["stated"].offload, models["stated"].quantization) == ("group", None)
    assert (models["large"].offload, models["large"].quantization) == ("none", None)


@pytest.mark.parametrize(
    ("lines", "said"),
    [
        ("extends = 'flux-dev'\nprofile = 'small'", "models.mine.profile"),
        ("extends = 'shapes-flux'\nprofile = '24gb'", "models.mine.profile: needs the entry's size"),
        ("extends = 'flux-dev'\nprofile = '1gb'", "models.mine.profile: the weights fit by none of the settings"),
        ("extends = 'flux-dev'\nprofile = '24gb'\noffload = 'none'", "fit by none of the settings"),
    ],
)
def test_a_profile_that_cannot_be_had_is_named(tmp_path: Path, lines: str, said: str) -> None:
    with pytest.raises(CatalogError, match=said):
        catalog(tmp_path, f"[models.mine]\n{lines}")


@pytest.mark.parametrize("name", SIZED)
def test_every_sized_entry_fits_every_memory_by_the_first_setting_that_does(name: str) -> None:
    for memory in MEMORIES_GB:
        entry = KNOWN[name]
        changes = fitting_changes(entry, memory, recorded_footprint)
        assert changes is not None, (name, memory)
        found = recorded_footprint(Model.model_validate(dict(entry) | changes))
        assert found is not None
        assert found.device_bytes <= DEVICE_SHARE * memory * GB
    plain = recorded_footprint(KNOWN[name])
    assert plain is not None
    assert (fitting_changes(KNOWN[name], plain.device_bytes / GB / DEVICE_SHARE, recorded_footprint)) == {}


def test_the_arithmetic_written_out() -> None:
    """Two parts of 10 GB that are cast, 6 GB of others: 26 whole, 20 cast; by components 10, or 7 cast."""
    entry = KNOWN["flux-dev"].model_copy(
        update={"size": Size(loaded_gb=26, largest_part_gb=10, largest_parts=("transformer", "transformer_2"))}
    )
    needed = {
        32.5: ("none", False), 25: ("none", True), 12.5: ("model", False), 8.75: ("model", True), 4: ("group", False),
    }  # fmt: skip
    for gigabytes, settings in needed.items():
        for memory in (gigabytes, gigabytes + 0.01):
            changes = fitting_changes(entry, memory, recorded_footprint)
            assert changes is not None
            assert (changes.get("offload", "none"), "quantization" in changes) == settings
    assert fitting_changes(entry, GROUP_GB, recorded_footprint) is None


SD35_LARGE = {"num_layers": 38, "num_attention_heads": 38, "caption_projection_dim": 2432, "qk_norm": "rms_norm"}


@pytest.mark.parametrize(("kind", "options"), [(FluxTransformer2DModel, {}), (SD3Transformer2DModel, SD35_LARGE)])
def test_casting_leaves_at_most_the_share_of_the_arithmetic(kind: type, options: dict[str, object]) -> None:
    with torch.device("meta"):
        module = kind(**options)
    tensors = dict(module.named_parameters())
    kept = 0
    for name, tensor in tensors.items():
        owner = name.rpartition(".")[0]
        weight = tensors.get(f"{owner}.weight")
        is_cast = weight is not None and weight.ndim > 1 and not skips_casting(kind, owner)
        kept += tensor.numel() * (1 if is_cast else 2)
    share = kept / (2 * sum(tensor.numel() for tensor in tensors.values()))
    assert 0.5 < share <= CAST_SHARE
