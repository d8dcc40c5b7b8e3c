from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from pydantic import ValidationError

from app.api.requests.generation import GenerationBody
from app.api.resolver import resolve
from app.catalog import Catalog, CatalogLora, Inputs, Model, Range, UploadedLora
from app.errors import InvalidParameter, UnsupportedParameter
from app.jobs import Guidance, LoraUse
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
            "inputs": Inputs(),
            "kind": "video",
            "num_frames": Range[int](default=17, min=5, max=81, multiple=4, offset=1),
            "fps": Range[int](default=16, min=1, max=60),
        }
    )
    return Catalog(default="shapes-flux", models={"shapes-flux": model, "plain": plain, "film": video})


def ask(**fields: Any) -> GenerationBody:
    return GenerationBody(**{"prompt": "a shape", **fields})


def test_every_default_is_the_models(catalog: Catalog) -> None:
    generation = resolve(ask(seed=7), catalog).request
    model: Model = catalog.models["shapes-flux"]
    assert (generation.model, generation.seed, generation.n) == ("shapes-flux", 7, 1)
    assert generation.num_inference_steps == model.num_inference_steps.default
    assert generation.guidance_scale == model.guidance_scale.default
    assert (generation.width, generation.height) == (model.width.default, model.height.default)
    assert (generation.output_format, generation.output_compression) == ("png", 100)
    assert generation.nag is None


def test_a_drawn_seed_survives_a_double(catalog: Catalog) -> None:
    assert all(0 <= resolve(ask(), catalog).request.seed < 2**53 for _ in range(100))


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
    job = resolve(ask(**fields), catalog)
    assert job.request.nag == expected
    assert job.warnings == ()


def test_a_negative_prompt_that_goes_unused_is_said(catalog: Catalog) -> None:
    job = resolve(ask(negative_prompt="blurry", nag={"negative_prompt": "a red shape"}), catalog)
    assert job.request.nag == DEFAULTS
    assert job.warnings == (
        "negative_prompt was left out: nag.negative_prompt goes before it, and guidance_scale is 1",
    )


@pytest.mark.parametrize("model", ["shapes-flux", "plain"])
@pytest.mark.parametrize("blank", ["", " \n\t", None])
def test_a_blank_negative_prompt_asks_for_nothing(catalog: Catalog, model: str, blank: str | None) -> None:
    for fields in ({"negative_prompt": blank}, {"nag": {"negative_prompt": blank}}):
        job = resolve(ask(model=model, **fields), catalog)
        assert (job.request.nag, job.request.negative_prompt, job.warnings) == (None, None, ())


@pytest.mark.parametrize(("fields", "param"), [({"nag": {}}, "nag"), ({"negative_prompt": "x"}, "negative_prompt")])
def test_a_model_without_nag(catalog: Catalog, fields: dict[str, Any], param: str) -> None:
    with pytest.raises(UnsupportedParameter) as caught:
        resolve(ask(model="plain", **fields), catalog)
    assert caught.value.param == param
    lenient = resolve(ask(model="plain", strict=False, **fields), catalog)
    assert lenient.request.nag is None
    assert [each.split()[0] for each in lenient.warnings] == [param]


def test_a_model_without_nag_still_has_cfg(catalog: Catalog) -> None:
    job = resolve(ask(model="plain", negative_prompt="x", guidance_scale=2.0), catalog)
    assert (job.request.negative_prompt, job.request.nag, job.warnings) == ("x", None, ())


def test_an_unknown_model(catalog: Catalog) -> None:
    with pytest.raises(InvalidParameter, match="no model 'gone'; served are shapes-flux, plain, film") as caught:
        resolve(ask(model="gone"), catalog)
    assert (caught.value.param, caught.value.error_code) == ("model", "model_not_found")


def test_compression_belongs_to_lossy_formats(catalog: Catalog) -> None:
    assert resolve(ask(output_format="jpeg", output_compression=80), catalog).request.output_compression == 80
    lenient = resolve(ask(output_compression=80, strict=False), catalog)
    assert lenient.request.output_compression == 100
    assert lenient.warnings == ("output_compression was left out: a png is lossless; ask for jpeg or webp",)


def test_a_video_s_defaults(catalog: Catalog) -> None:
    film, picture = (resolve(ask(model=each), catalog).request for each in ("film", "plain"))
    assert (film.num_frames, film.fps, film.output_format, film.output_compression) == (17, 16, "mp4", 100)
    assert (picture.num_frames, picture.fps, picture.output_format) == (None, None, "png")
    assert (film.video_codec, picture.video_codec) == ("h264", None)
    fields: dict[str, Any] = {"num_frames": 33, "fps": 24, "output_format": "mp4", "n": 2, "video_codec": "av1"}
    asked = resolve(ask(model="film", **fields), catalog).request
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
    assert lenient.request == resolve(ask(model=model, strict=False, seed=1), catalog).request
    assert [each.split()[0] for each in lenient.warnings] == [param]


@pytest.mark.parametrize("fields", [{"num_frames": 16}, {"num_frames": 85}, {"fps": 0}, {"fps": 61}])
def test_frames_off_the_grid(catalog: Catalog, fields: dict[str, int]) -> None:
    with pytest.raises(InvalidParameter, match="for model film, not") as caught:
        resolve(ask(model="film", **fields), catalog)
    assert (caught.value.param, caught.value.error_code) == (*fields, "invalid_parameter")


def lora(name: str, base: str = "shapes-flux", **scale: float) -> CatalogLora:
    allowed = Range[float](**{"default": 0.75, "min": -1.0, "max": 1.5, **scale})
    return CatalogLora(id=name, base=base, path=f"{name}.safetensors", scale=allowed)


@pytest.fixture
def with_loras(catalog: Catalog) -> Catalog:
    loras = {each.id: each for each in (lora("ink"), lora("oil"), lora("film-look", "film"))}
    return catalog.model_copy(update={"loras": loras, "bases": {"plain": frozenset({"plain", "shapes-flux"})}})


def test_loras_get_their_scales_and_stay_in_order(with_loras: Catalog) -> None:
    asked = ask(loras=[{"id": "oil", "scale": -1}, {"id": "ink"}])
    for model in ("shapes-flux", "plain"):
        job = resolve(asked.model_copy(update={"model": model}), with_loras)
        assert job.request.loras == (LoraUse("oil", -1.0), LoraUse("ink", 0.75))
    assert resolve(ask(), with_loras).request.loras == ()
    assert resolve(ask(loras=[]), with_loras).request.loras == ()


def test_an_uploaded_lora_goes_before_one_of_the_catalog(with_loras: Catalog) -> None:
    own = UploadedLora(
        **lora("ink", default=0.5).model_dump(include={"id", "base", "scale"}), version="0" * 16, tenant="a", sha256="",
        size_bytes=1, created_at=0.0, layers=1, rank=1, parts=(),
    )  # fmt: skip
    uploaded = {own.id: own, own.use_id: own}
    for name in uploaded:
        uses = resolve(ask(loras=[{"id": name}]), with_loras, uploaded=uploaded).request.loras
        assert uses == (LoraUse(f"ink@{'0' * 16}", 0.5),)
    with pytest.raises(InvalidParameter, match="is there twice"):
        resolve(ask(loras=[{"id": name} for name in uploaded]), with_loras, uploaded=uploaded)


@pytest.mark.parametrize(
    ("model", "loras", "param", "message"),
    [
        ("shapes-flux", [{"id": "inc"}], "loras.0.id", "no LoRA 'inc'; model shapes-flux takes ink, oil"),
        ("film", [{"id": "inc"}], "loras.0.id", "model film takes film-look"),
        ("film", [{"id": "film-look"}, {"id": "ink"}], "loras.1.id", "ink is a LoRA for shapes-flux; model film takes"),
        ("plain", [{"id": "film-look"}], "loras.0.id", "film-look is a LoRA for film"),
        ("plain", [{"id": "ink"}, {"id": "ink"}], "loras.1.id", "ink is there twice"),
        ("plain", [{"id": "ink", "scale": 1.6}], "loras.0.scale", "must be -1 to 1.5 for ink, got 1.6"),
        ("plain", [{"id": "oil"}, {"id": "ink", "scale": -1.1}], "loras.1.scale", "must be -1 to 1.5 for ink"),
    ],
)
def test_loras_that_cannot_be_used(
    with_loras: Catalog, model: str, loras: list[dict[str, Any]], param: str, message: str
) -> None:
    with pytest.raises(InvalidParameter, match=message) as caught:
        resolve(ask(model=model, loras=loras), with_loras)
    assert caught.value.param == param


def test_a_model_without_loras_names_the_field(with_loras: Catalog) -> None:
    plain = with_loras.models["plain"].model_copy(update={"request_loras": False})
    refusing = with_loras.model_copy(update={"models": {**with_loras.models, "plain": plain}})
    with pytest.raises(UnsupportedParameter, match="loras: model plain takes none"):
        resolve(ask(model="plain", loras=[{"id": "ink"}]), refusing)
    lenient = resolve(ask(model="plain", loras=[{"id": "ink"}], strict=False), refusing)
    assert lenient.request.loras == ()
    assert lenient.warnings == ("loras was left out: model plain takes none",)


@pytest.mark.parametrize(
    "loras",
    [
        [{"id": str(number)} for number in range(9)],
        [{"id": ""}],
        [{"scale": 1.0}],
        [{"id": "ink", "scale": float("nan")}],
        [{"id": "ink", "scale": "1"}],
        [{"id": "ink", "weight": 1}],
        {"id": "ink"},
        ["ink"],
    ],
)
def test_loras_of_another_shape(loras: Any) -> None:
    with pytest.raises(ValidationError):
        ask(loras=loras)
