from __future__ import annotations

from pathlib import Path

import pytest

from app.catalog import Catalog, CatalogError
from app.settings import Settings

ENTRY = """
[models.{name}]
description = "one more"
path = "{path}"
family = "flux"
kind = "image"
dtype = "float32"
num_inference_steps = {{ default = 4, min = 1, max = 50 }}
guidance_scale = {{ default = 1.0, min = 1.0, max = 20.0 }}
width = {{ default = 64, min = 64, max = 128, multiple = 16 }}
height = {{ default = 64, min = 64, max = 128, multiple = 16 }}
prompt_max_chars = 10
"""

NAG = "nag = { scale = 5, tau = 2.5, alpha = 2, end = 1 }"


def load(folder: Path, text: str) -> Catalog:
    (folder / "more.toml").write_text(text)
    return Catalog.load(Settings(catalog=folder / "more.toml"))


def test_the_built_in_catalog() -> None:
    catalog = Catalog.load(Settings())
    model = catalog.models[catalog.default]
    assert (Path(model.path) / "model_index.json").is_file()
    assert model.nag is not None


def test_a_second_file_adds_and_wins(tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    text = (
        'default = "mine"'
        + ENTRY.format(name="mine", path="mine")
        + ENTRY.format(name="shapes-flux", path="a/hub-name")
    )
    catalog = load(tmp_path, text)
    assert catalog.default == "mine"
    assert catalog.models["mine"].path == str(tmp_path / "mine")
    assert catalog.models["mine"].nag is None
    assert catalog.models["shapes-flux"].path == "a/hub-name"


def test_the_default_stays_when_the_second_file_names_none(tmp_path: Path) -> None:
    assert load(tmp_path, ENTRY.format(name="mine", path=tmp_path)).default == "shapes-flux"


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("min = 64", 'min = "x"', ["models.mine.width.min", "'x'"]),
        ("default = 64", "default = 60", ["models.mine.width", "60", "64 to 128, a multiple of 16"]),
        ("multiple = 16", "multiple = 0", ["models.mine.width", "0"]),
        ('kind = "image"', 'kind = "sound"', ["models.mine.kind", "'sound'"]),
        ('family = "flux"', "", ["models.mine.family", "required"]),
        ("prompt_max_chars = 10", "prompt_max_chars = 0", ["models.mine.prompt_max_chars", "0"]),
        ("prompt_max_chars", "promt_max_chars", ["models.mine."]),
        ("prompt_max_chars = 10", f"prompt_max_chars = 10\n{NAG}", ["models.mine.nag", "alpha", "2"]),
        ("[models.mine]", "[modls.mine]", ["modls"]),
        ("[models.mine]", "default = 'gone'\n[models.mine]", ["default", "'gone'"]),
        ("[models.mine]", "models = 3\n[x]", ["x"]),
        ("[models.mine]", "[models.mine", ["not TOML"]),
    ],
)  # fmt: skip
def test_a_wrong_file_is_named_with_its_key_and_value(tmp_path: Path, old: str, new: str, said: list[str]) -> None:
    text = ENTRY.format(name="mine", path=tmp_path)
    assert old in text
    with pytest.raises(CatalogError) as caught:
        load(tmp_path, text.replace(old, new, 1))
    assert all(each in str(caught.value) for each in ["more.toml", *said]), str(caught.value)


VIDEO = """
num_frames = {{ default = 17, min = 5, max = {most}, multiple = 4, offset = 1 }}
fps = {{ default = 16, min = 1, max = 60 }}
"""


def test_a_video_s_frames_lie_on_their_grid(tmp_path: Path) -> None:
    entry = ENTRY.replace('"image"', '"video"') + VIDEO
    frames = load(tmp_path, entry.format(name="mine", path=tmp_path, most=82)).models["mine"].num_frames
    assert frames is not None
    assert [each for each in range(4, 90) if frames.holds(each)] == list(range(5, 83, 4))
    assert str(frames) == "5 to 82, a multiple of 4 plus 1"


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("default = 17", "default = 16", ["models.mine.num_frames", "16", "a multiple of 4 plus 1"]),
        ("multiple = 4, offset = 1", "offset = 1", ["models.mine.num_frames", "offset needs a multiple"]),
        ("fps =", "fpt =", ["models.mine"]),
        ("fps = { default = 16, min = 1, max = 60 }", "", ["models.mine", "fps is required where kind is video"]),
        ('kind = "video"', 'kind = "image"', ["models.mine", "num_frames is unknown where kind is image"]),
        ("min = 1, max = 60", "min = 0, max = 60", ["models.mine", "fps.min must be at least 1"]),
        ("multiple = 16", "multiple = 1", ["models.mine", "width.multiple must be even"]),
    ],
)  # fmt: skip
def test_a_video_entry_that_does_not_fit(tmp_path: Path, old: str, new: str, said: list[str]) -> None:
    text = (ENTRY.replace('"image"', '"video"') + VIDEO).format(name="mine", path=tmp_path, most=81)
    assert old in text
    with pytest.raises(CatalogError) as caught:
        load(tmp_path, text.replace(old, new, 1))
    assert all(each in str(caught.value) for each in ["more.toml", *said]), str(caught.value)


def test_a_missing_file(tmp_path: Path) -> None:
    with pytest.raises(CatalogError, match=r"gone\.toml: cannot be read"):
        Catalog.load(Settings(catalog=tmp_path / "gone.toml"))
