from __future__ import annotations

import re
from pathlib import Path

import pytest

from app.catalog import Catalog, CatalogError
from app.settings import Settings

ENTRY = """
[models.{name}]
description = "one more"
repository = "{path}"
family = "flux"
kind = "image"
dtype = "float32"
num_inference_steps = {{ default = 4, min = 1, max = 50 }}
guidance_scale = {{ default = 1.0, min = 1.0, max = 20.0 }}
width = {{ default = 64, min = 64, max = 128, multiple = 16 }}
height = {{ default = 64, min = 64, max = 128, multiple = 16 }}
prompt_max_chars = 10
"""

EMBEDDED = ("shapes-flux", "shapes-sd", "shapes-sd-turbo", "shapes-wan")
STEPS = "num_inference_steps = { default = 4, min = 1, max = 50 }"
FILE = "repository = 'a/b', weight_name = 'c'"
QUANTIZED = "quantization = { method = 'torchao-int8', components = ['transformer'] }"
CAST, NF4 = (QUANTIZED.replace("torchao-int8", method) for method in ("layerwise-fp8", "bitsandbytes-nf4"))
FIRST_BLOCK, GGUF_FILE = "cache = { method = 'first_block' }", "repository = 'a/b', weight_name = 'c.gguf'"
FRAMES = """num_frames = { default = 9, min = 5, max = 17, multiple = 4, offset = 1 }
fps = { default = 8, min = 1, max = 30 }"""
NAG = "nag = { scale = 5, tau = 2.5, alpha = 2, end = 1 }"


def load(folder: Path, text: str) -> Catalog:
    (folder / "more.toml").write_text(text)
    return Catalog.load(Settings(catalog=folder / "more.toml"))


def test_the_built_in_catalog() -> None:
    catalog = Catalog.load(Settings())
    model = catalog.models[catalog.default]
    assert (Path(model.repository) / "model_index.json").is_file()
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
    assert catalog.models["mine"].repository == str(tmp_path / "mine")
    assert catalog.models["mine"].nag is None
    assert catalog.models["shapes-flux"].repository == "a/hub-name"


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
        (STEPS, f"{STEPS}\nrevision = 'v1'", ["models.mine.revision", "'v1'"]),
        (STEPS, f"{STEPS}\nlora = [{{ repository = 'a/b' }}]", ["models.mine.lora.0.weight_name", "required"]),
        (STEPS, f"{STEPS}\nlora = [{{ {FILE}, scale = 0 }}]", ["models.mine.lora.0.scale", "0"]),
        (STEPS, f"{STEPS}\nlora = [{{ {FILE}, into = 'vae' }}]", ["models.mine.lora.0.into", "'vae'"]),
        (STEPS, f"{STEPS}\nlora = [{{ {FILE} }}]\n{QUANTIZED}", ["models.mine", "lora.fuse"]),
        (STEPS, f"{STEPS}\ndenoiser = {{ {FILE} }}\n{QUANTIZED}", ["models.mine", "denoiser"]),
        (STEPS, f"{STEPS}\nvae = {{ {FILE} }}\n{QUANTIZED.replace('transformer', 'vae')}", ["models.mine", "vae: "]),
        (STEPS, f"{STEPS}\nvae = {{ {FILE}, revision = 3 }}", ["models.mine.vae.revision", "3"]),
        (STEPS, f"{STEPS}\nvae = {{ repository = '.', revision = 'v1' }}", ["models.mine.vae.revision", "'v1'"]),
        (STEPS, f"{STEPS}\nquantization = {{ method = 'fewer', components = ['vae'] }}", ["quantization", "'fewer'"]),
        (STEPS, f"{STEPS}\nscheduler = {{ name = 'X', options = {{ a = 1 }}, unset = ['a'] }}", ["scheduler", "a is"]),
        (STEPS, f"{STEPS}\noffload = 'disk'", ["models.mine.offload", "'disk'"]),
        (STEPS, f"{STEPS}\ncompile = 'all'", ["models.mine.compile", "'all'"]),
        (STEPS, f"{STEPS}\nattention = 'fast'", ["models.mine.attention", "'fast'"]),
        (STEPS, f"{STEPS}\nvae_tiling = 8", ["models.mine.vae_tiling", "8"]),
        (STEPS, f"{STEPS}\ncache = {{ method = 'tea' }}", ["models.mine.cache.method", "'tea'"]),
        (STEPS, f"{STEPS}\ncache = {{ method = 'pyramid' }}", ["models.mine.cache", "pyramid keeps one state per mod"]),
        (STEPS, f"{STEPS}\ncache = {{ method = 'faster' }}", ["models.mine.cache", "faster keeps one state per mod"]),
        (STEPS, f"{STEPS}\n{FIRST_BLOCK}\ncompile = 'blocks'", ["models.mine", "cache: ", "compile must be none"]),
        (STEPS, f"{STEPS}\n{FIRST_BLOCK}\noffload = 'group'", ["models.mine", "cache: ", "offload = group"]),
        (STEPS, f"{STEPS}\ncache = {{ method = 'mag' }}", ["models.mine", "cache: mag", "1 to 50"]),
        (STEPS, f"{STEPS}\n{CAST}\ncompile = 'denoiser'", ["models.mine", "layerwise-fp8", "compile must be none"]),
        (STEPS, f"{STEPS}\n{NF4}\noffload = 'group'", ["models.mine", "bitsandbytes-nf4", "use offload = model"]),
        (STEPS, f"{STEPS}\nlora = [{{ {FILE} }}]\ndenoiser = {{ {GGUF_FILE} }}", ["models.mine", "lora.fuse"]),
        (STEPS, f"{STEPS}\ncomponent_dtypes = {{ vae = 'int8' }}", ["models.mine.component_dtypes.vae", "'int8'"]),
        (STEPS, f"{STEPS}\ncomponent_dtypes = {{ default = 'float16' }}", ["component_dtypes.default"]),
        (STEPS, f"{STEPS}\ncfg = 'none'", ["models.mine", "guidance_scale", "1 to 20", "ignored"]),
        (STEPS, f"{STEPS}\nembedded_guidance = 3.5", ["models.mine", "embedded_guidance"]),
        ("min = 1.0", "min = 0.0", ["models.mine", "guidance_scale.min", "0"]),
        (STEPS, f"{STEPS}\ncall = {{ width = 8 }}", ["models.mine", "call.width"]),
        (STEPS, f"{STEPS}\ncall = {{ timesteps = [9, 8, 7] }}", ["models.mine", "call.timesteps", "3", "1 to 50"]),
        ('kind = "image"', 'kind = "video"', ["models.mine", "num_frames is required"]),
        ('kind = "image"', f'kind = "image"\n{FRAMES}', ["models.mine", "num_frames is unknown"]),
        ('kind = "image"', f'kind = "video"\n{FRAMES.replace("9", "8", 1)}', ["num_frames", "8", "4 plus 1"]),
        (STEPS, f"{STEPS}\nextends = 'gone'", ["models.mine.extends", "'gone'"]),
        (STEPS, f"{STEPS}\nextends = 'mine'", ["models.mine.extends", "'mine'"]),
        (STEPS, f"{STEPS}\nextends = 'b'\n[models.b]\nextends = 'mine'", ["extends", "'mine'"]),
        (STEPS, f"{STEPS}\nextends = 3", ["models.mine.extends", "3"]),
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
    assert [frames.nearest(each) for each in (-3.0, 6.9, 7.0, 80.0, 200.0)] == [5, 5, 9, 81, 81]
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


def test_an_entry_takes_what_it_does_not_say_from_the_one_it_extends(tmp_path: Path) -> None:
    text = """
[models.flux-dev]
extends = "flux-dev"
offload = "model"

[models.mine]
extends = "other"
description = "mine"

[models.other]
extends = "flux-dev"
dtype = "float16"

[models.shapes]
extends = "shapes-flux"
nag = { scale = 9, tau = 2.5, alpha = 0.5, end = 1 }
"""
    models = load(tmp_path, text).models
    known = Catalog.known(Settings())
    assert models["flux-dev"] == known["flux-dev"].model_copy(update={"offload": "model"})
    changes = {"id": "mine", "offload": "model", "description": "mine", "dtype": "float16"}
    assert models["mine"] == known["flux-dev"].model_copy(update=changes)
    # A folder is relative to the file that names it.
    assert models["shapes"].repository == known["shapes-flux"].repository


def test_a_folder_of_weights_is_relative_to_its_file(tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    more = """
lora = [{ repository = 'mine', weight_name = 'x' }]
denoiser = { repository = 'mine', weight_name = 'y' }
vae = { repository = 'mine' }
"""
    model = load(tmp_path, ENTRY.format(name="mine", path="mine") + more).models["mine"]
    assert {key: source.repository for key, source in model.sources.items()} == dict.fromkeys(
        ("", "denoiser", "vae", "lora.0"), str(tmp_path / "mine")
    )


def test_models_of_the_hub_are_served_where_they_are_named(tmp_path: Path) -> None:
    assert tuple(Catalog.load(Settings()).models) == EMBEDDED
    named = Catalog.load(Settings(models="flux-dev, sdxl-dmd2"))  # type: ignore[arg-type]
    assert (named.default, list(named.models)) == ("flux-dev", ["flux-dev", "sdxl-dmd2"])
    beside = Catalog.load(Settings(models=("sdxl-dmd2", "shapes-flux")))
    assert (beside.default, list(beside.models)) == ("shapes-flux", ["sdxl-dmd2", "shapes-flux"])
    assert set(named.models) | set(beside.models) < set(Catalog.known(Settings()))
    with pytest.raises(CatalogError, match="NAG_MODELS: 'gone' is none of shapes-flux, shapes-sd, "):
        Catalog.load(Settings(models="gone"))  # type: ignore[arg-type]
    # A file of one's own may make one of them the default, and is served whole.
    mine = load(tmp_path, "default = 'z-image-turbo'" + ENTRY.format(name="mine", path=tmp_path))
    assert (mine.default, list(mine.models)) == ("z-image-turbo", [*EMBEDDED, "mine", "z-image-turbo"])


@pytest.mark.parametrize("name", [name for name in Catalog.known(Settings()) if name not in EMBEDDED])
def test_an_entry_of_the_hub_leaves_nothing_open(name: str) -> None:
    model = Catalog.known(Settings())[name]
    sources = model.sources.values()
    assert all(re.fullmatch(r"[\w.-]+/[\w.-]+", source.repository) for source in sources)
    # What is not pinned is to be a choice, and said.
    unpinned = {"flux-krea-dev", "flux-kontext-dev"}
    assert all(re.fullmatch("[0-9a-f]{40}", source.revision) for source in sources) or name in unpinned
    assert model.pipeline
    assert model.licence
    assert model.nag
    assert model.width.multiple
    assert model.height.multiple
    assert (model.kind == "video") == (model.num_frames is not None) == (model.fps is not None)


def test_a_missing_file(tmp_path: Path) -> None:
    with pytest.raises(CatalogError, match=r"gone\.toml: cannot be read"):
        Catalog.load(Settings(catalog=tmp_path / "gone.toml"))


LORA = """
[loras.{name}]
base = "{base}"
path = "{name}.safetensors"
trigger_words = ["in watercolor"]
scale = {{ default = 0.8, min = -1, max = 1.5 }}
"""


def test_a_lora_is_taken_by_its_base_by_what_extends_it_and_by_its_weights(tmp_path: Path) -> None:
    text = (
        '[models.krea]\nextends = "shapes-flux"\nrepository = "a/krea"\n'
        '[models.krea-fast]\nextends = "krea"\n'
        f"[models.same]\n{ENTRY.format(name='x', path='a/krea').partition(']')[2]}"
    )
    catalog = load(tmp_path, text + LORA.format(name="w", base="krea") + LORA.format(name="v", base="shapes-flux"))
    taken = {
        name: {model.id for model in catalog.models.values() if catalog.takes(model, catalog.loras[name])}
        for name in ("w", "v")
    }
    assert taken == {"w": {"krea", "krea-fast", "same"}, "v": {"krea", "krea-fast", "shapes-flux"}}
    assert catalog.loras["w"].path == str(tmp_path / "w.safetensors")
    assert catalog.loras["w"].scale.holds(-1)
    assert catalog.loras["w"].use_id == "w"
    refusing = catalog.models["krea"].model_copy(update={"request_loras": False})
    assert not catalog.takes(refusing, catalog.loras["w"])


def test_loras_of_models_that_are_not_served_are_left_out() -> None:
    assert [*Catalog.load(Settings()).served_loras] == ["dotted", "underlined"]
    assert [*Catalog.load(Settings(models=("flux-dev",))).served_loras] == []


def test_a_lora_of_the_hub(tmp_path: Path) -> None:
    text = '[loras.w]\nbase = "flux-dev"\nrepository = "a/b"\nweight_name = "c.safetensors"\nrevision = "abc"'
    source = load(tmp_path, text).loras["w"].source
    assert (source.repository, source.weight_name, source.revision) == ("a/b", "c.safetensors", "abc")


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        ("", "loras.w.base: Field required"),
        ('base = "nope"\npath = "a"', "loras.w.base: 'nope' is none of shapes-flux, "),
        ('base = "flux-dev"', "either path or repository is required"),
        ('base = "flux-dev"\npath = "a"\nrepository = "b/c"\nweight_name = "d"', "either path or repository"),
        ('base = "flux-dev"\nrepository = "b/c"', "repository and weight_name go together"),
        ('base = "flux-dev"\npath = "a"\nrevision = "b"', "revision: a path has none"),
        ('base = "flux-dev"\npath = "a"\nscale = { default = 3, min = 0, max = 2 }', "default 3 is not within 0 to 2"),
        ('base = "flux-dev"\npath = "a"\nscale = { default = 1, min = 0, max = inf }', "scale must be within -100"),
        ('base = "flux-dev"\npath = "a"\nsteps = 4', "loras.w.steps: Extra inputs are not permitted"),
        ('base = "flux-dev"\npath = "a"\n[loras."../up"]\nbase = "flux-dev"\npath = "a"', "loras.../up.id: String"),
        ('base = "flux-dev"\npath = "a"\n[loras."a@b"]\nbase = "flux-dev"\npath = "a"', "loras.a@b.id: String"),
    ],
)
def test_a_lora_that_does_not_fit(tmp_path: Path, lines: str, message: str) -> None:
    with pytest.raises(CatalogError, match=re.escape(message)):
        load(tmp_path, f"[loras.w]\n{lines}")


@pytest.mark.parametrize(
    ("edits", "tasks"),
    [
        ("[]", ()),
        ('["img2img"]', ("img2img",)),
        ('["inpaint"]', ("inpaint",)),
        ('["inpaint", "img2img"]', ("inpaint", "img2img")),
    ],
)
def test_the_former_key_of_edits_is_read(tmp_path: Path, edits: str, tasks: tuple[str, ...]) -> None:
    catalog = load(tmp_path, f'[models.mine]\nextends = "shapes-flux"\nedits = {edits}')
    assert catalog.models["mine"].inputs.tasks == tasks


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ('edits = ["all"]', "edits: write inputs in its place"),
        ("edits = []\ninputs = {}", "edits: write inputs in its place"),
        ("inputs = { first_frame = {} }", "inputs.first_frame: a model of this kind (image) takes none"),
        ("inputs = { mask = {} }", "mask goes with image, which is missing"),
        ("inputs = { image = { max = 2 } }", "image.max must be 1"),
        ("inputs = { references = { max = 17 } }", "less than or equal to 16"),
        ("inputs = { sound = {} }", "inputs.sound"),
    ],
)
def test_inputs_that_do_not_fit_are_said(tmp_path: Path, line: str, said: str) -> None:
    with pytest.raises(CatalogError, match=re.escape(said)):
        load(tmp_path, f'[models.mine]\nextends = "shapes-flux"\n{line}')
