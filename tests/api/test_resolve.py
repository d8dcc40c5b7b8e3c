from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from app.api.resolve import resolve
from app.api.schemas import GenerationBody
from app.catalog import Catalog, Model, Range
from app.errors import InvalidParameter, NotFound, UnsupportedParameter
from app.jobs import Guidance
from app.settings import Settings

DEFAULTS = Guidance(5.0, 2.5, 0.25, 1.0, "a red shape")


@pytest.fixture(scope="module")
def catalog() -> Catalog:
    built_in = Catalog.load(Settings())
    model = built_in.models["shapes-flux"]
    plain = model.model_copy(update={"id": "plain", "nag": None})
    video = model.model_copy(
        update={
            "id": "film",
            "edits": (),
            "kind": "video",
            "num_frames": Range[int](default=17, min=5, max=81, multiple=4, offset=1),
            "fps": Range[int](default=16, min=1, max=60),
        }
    )
    return Catalog(default="shapes-flux", models={"shapes-flux": model, "plain": plain, "film": video})


def ask(**fields: Any) -> GenerationBody:
    return GenerationBody(**{"prompt": "a shape", **fields})


def test_every_default_is_the_models(catalog: Catalog) -> None:
    generation = resolve(ask(seed=7), catalog).generation
    model: Model = catalog.models["shapes-flux"]
    assert (generation.model, generation.seed, generation.n) == ("shapes-flux", 7, 1)
    assert generation.num_inference_steps == model.num_inference_steps.default
    assert generation.guidance_scale == model.guidance_scale.default
    assert (generation.width, generation.height) == (model.width.default, model.height.default)
    assert (generation.output_format, generation.output_compression) == ("png", 100)
    assert generation.nag is None


def test_a_drawn_seed_survives_a_double(catalog: Catalog) -> None:
    assert all(0 <= resolve(ask(), catalog).generation.seed < 2**53 for _ in range(100))


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({"negative_prompt": "a red shape"}, DEFAULTS),
        ({"negative_prompt": "a red shape", "guidance_scale": 3.0}, None),
        ({"negative_prompt": "blurry", "guidance_scale": 3.0, "nag": {"negative_prompt": "a red shape"}}, DEFAULTS),
        ({"negative_prompt": "a red shape", "guidance_scale": 3.0, "nag": {}}, DEFAULTS),
        ({"nag": {"scale": 1.0}}, Guidance(1.0, 2.5, 0.25, 1.0, "")),
        ({"nag": {}}, replace(DEFAULTS, negative_prompt="")),
        ({"nag": {"scale": 5.0, "negative_prompt": ""}}, replace(DEFAULTS, negative_prompt="")),
        ({"negative_prompt": "a red shape", "nag": {"negative_prompt": " "}}, DEFAULTS),
    ],
)
def test_when_a_negative_prompt_means_nag(catalog: Catalog, fields: dict[str, Any], expected: Guidance | None) -> None:
    resolved = resolve(ask(**fields), catalog)
    assert resolved.generation.nag == expected
    assert resolved.warnings == ()


def test_a_negative_prompt_that_goes_unused_is_said(catalog: Catalog) -> None:
    resolved = resolve(ask(negative_prompt="blurry", nag={"negative_prompt": "a red shape"}), catalog)
    assert resolved.generation.nag == DEFAULTS
    assert resolved.warnings == (
        "negative_prompt was left out: nag.negative_prompt goes before it, and guidance_scale is 1",
    )


@pytest.mark.parametrize("model", ["shapes-flux", "plain"])
@pytest.mark.parametrize("blank", ["", " \n\t", None])
def test_a_blank_negative_prompt_asks_for_nothing(catalog: Catalog, model: str, blank: str | None) -> None:
    for fields in ({"negative_prompt": blank}, {"nag": {"negative_prompt": blank}}):
        resolved = resolve(ask(model=model, **fields), catalog)
        assert (resolved.generation.nag, resolved.generation.negative_prompt, resolved.warnings) == (None, None, ())


@pytest.mark.parametrize(("fields", "param"), [({"nag": {}}, "nag"), ({"negative_prompt": "x"}, "negative_prompt")])
def test_a_model_without_nag(catalog: Catalog, fields: dict[str, Any], param: str) -> None:
    with pytest.raises(UnsupportedParameter) as caught:
        resolve(ask(model="plain", **fields), catalog)
    assert caught.value.param == param
    lenient = resolve(ask(model="plain", strict=False, **fields), catalog)
    assert lenient.generation.nag is None
    assert [each.split()[0] for each in lenient.warnings] == [param]


def test_a_model_without_nag_still_has_cfg(catalog: Catalog) -> None:
    resolved = resolve(ask(model="plain", negative_prompt="x", guidance_scale=2.0), catalog)
    assert (resolved.generation.negative_prompt, resolved.generation.nag, resolved.warnings) == ("x", None, ())


def test_an_unknown_model(catalog: Catalog) -> None:
    with pytest.raises(NotFound) as caught:
        resolve(ask(model="gone"), catalog)
    assert (caught.value.param, caught.value.error_code) == ("model", "model_not_found")


def test_compression_belongs_to_lossy_formats(catalog: Catalog) -> None:
    assert resolve(ask(output_format="jpeg", output_compression=80), catalog).generation.output_compression == 80
    lenient = resolve(ask(output_compression=80, strict=False), catalog)
    assert lenient.generation.output_compression == 100
    assert lenient.warnings == ("output_compression was left out: a png is lossless; ask for jpeg or webp",)


def test_a_video_s_defaults(catalog: Catalog) -> None:
    film, picture = (resolve(ask(model=each), catalog).generation for each in ("film", "plain"))
    assert (film.num_frames, film.fps, film.output_format, film.output_compression) == (17, 16, "mp4", 100)
    assert (picture.num_frames, picture.fps, picture.output_format) == (None, None, "png")
    assert (film.video_codec, picture.video_codec) == ("h264", None)
    fields: dict[str, Any] = {"num_frames": 33, "fps": 24, "output_format": "mp4", "n": 2, "video_codec": "av1"}
    asked = resolve(ask(model="film", **fields), catalog).generation
    assert (asked.num_frames, asked.fps, asked.n, asked.video_codec) == (33, 24, 2, "av1")


@pytest.mark.parametrize(
    ("model", "fields"),
    [
        ("plain", {"num_frames": 17}),
        ("plain", {"fps": 16}),
        ("plain", {"video_codec": "h264"}),
        ("plain", {"output_format": "mp4"}),
        ("film", {"output_format": "png"}),
        ("film", {"output_compression": 80}),
    ],
)
def test_what_belongs_to_the_other_kind(catalog: Catalog, model: str, fields: dict[str, Any]) -> None:
    (param,) = fields
    with pytest.raises(UnsupportedParameter) as caught:
        resolve(ask(model=model, **fields), catalog)
    assert caught.value.param == param
    lenient = resolve(ask(model=model, strict=False, seed=1, **fields), catalog)
    assert lenient.generation == resolve(ask(model=model, strict=False, seed=1), catalog).generation
    assert [each.split()[0] for each in lenient.warnings] == [param]


@pytest.mark.parametrize("fields", [{"num_frames": 16}, {"num_frames": 85}, {"fps": 0}, {"fps": 61}])
def test_frames_off_the_grid(catalog: Catalog, fields: dict[str, int]) -> None:
    with pytest.raises(InvalidParameter, match="for model film, not") as caught:
        resolve(ask(model="film", **fields), catalog)
    assert (caught.value.param, caught.value.error_code) == (*fields, "invalid_parameter")
