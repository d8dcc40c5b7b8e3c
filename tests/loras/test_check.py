from __future__ import annotations

import io
import re
import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save

from app.catalog import Catalog
from app.loras import LoraFacts, LoraFileError, check_lora, find_structure
from app.settings import Settings
from tests.loras.lora_files import BAD, FLAT, LAYER, TEXT_LAYER, WIDTH, good, tensors

CATALOG = Catalog.load(Settings())


def check(data: bytes, model: str | None = "shapes-flux") -> LoraFacts:
    structure = None if model is None else find_structure(CATALOG.models[model])
    assert (structure is None) == (model is None)
    return check_lora(io.BytesIO(data), structure)


@pytest.mark.parametrize("name", BAD)
def test_a_bad_file_is_refused_with_a_reason(name: str) -> None:
    data, reason = BAD[name]
    with pytest.raises(LoraFileError, match=reason) as caught:
        check(data)
    assert len(str(caught.value)) < 600
    assert re.search(r"/tmp|/work|Traceback", str(caught.value)) is None


def test_there_are_enough_bad_files() -> None:
    assert len(BAD) >= 25


@pytest.mark.parametrize("dtype", [np.float32, np.float16])
def test_a_file_of_peft(dtype: type) -> None:
    pair: dict[str, Any] = {key: tensor.astype(dtype) for key, tensor in tensors().items()}
    assert check(save(pair)) == LoraFacts(1, 4, ("transformer",))
    assert check(save(pair), None) == LoraFacts(1, 4, ("denoiser",))


def test_a_file_of_kohya_with_alpha() -> None:
    pair = tensors(FLAT, rank=8, ends="du") | {f"{FLAT}.alpha": np.array(4, np.float32)}
    assert check(save(pair)) == LoraFacts(1, 8, ("transformer",))


def test_text_encoders() -> None:
    structure = find_structure(CATALOG.models["shapes-flux"])
    assert structure is not None
    part = structure.parts["text_encoder"]
    assert part is not None
    width = part.shapes[next(name for name in part.shapes if name.endswith("q_proj"))][0]
    pair = tensors(TEXT_LAYER, inputs=width, outputs=width)
    assert check(save(pair | tensors())) == LoraFacts(2, 4, ("text_encoder", "transformer"))
    flat = "lora_te1_" + TEXT_LAYER.partition(".")[2].replace(".", "_")
    assert check(save(tensors(flat, inputs=width, outputs=width, ends="du"))).parts == ("text_encoder",)


def test_convolutions_of_a_unet() -> None:
    structure = find_structure(CATALOG.models["shapes-sd"])
    assert structure is not None
    unet = structure.parts["unet"]
    assert unet is not None
    name = "down_blocks.0.resnets.0.conv1"
    outputs, inputs, height, width = unet.shapes[name]
    down = np.zeros((4, inputs, height, width), np.float32)
    up = np.zeros((outputs, 4, 1, 1), np.float32)
    pair = {f"unet.{name}.lora_A.weight": down, f"unet.{name}.lora_B.weight": up}
    assert check(save(pair), "shapes-sd").parts == ("unet",)
    flat = f"lora_unet_{name.replace('.', '_')}"
    assert check(save({f"{flat}.lora_down.weight": down, f"{flat}.lora_up.weight": up}), "shapes-sd").layers == 1
    with pytest.raises(LoraFileError, match="has the shape"):
        check(save({**pair, f"unet.{name}.lora_A.weight": np.zeros((4, inputs, 1, 1), np.float32)}), "shapes-sd")


def test_names_of_the_model_s_authors_are_left_to_the_worker() -> None:
    pair = tensors("diffusion_model.double_blocks.0.img_attn.qkv", inputs=WIDTH, outputs=3 * WIDTH)
    assert check(save(pair)).layers == 1


def test_a_file_for_one_embedded_model_fits_no_other() -> None:
    check(good())
    for model in ("shapes-sd", "shapes-wan"):
        with pytest.raises(LoraFileError, match="no such layer"):
            check(good(), model)


def test_every_cut_of_a_good_file_is_refused() -> None:
    data = good()
    for length in [*range(300), *range(300, len(data), 97)]:
        with pytest.raises(LoraFileError):
            check(data[:length], None)


def test_memory_is_bounded(tmp_path: Path) -> None:
    path = tmp_path / "large.safetensors"
    path.write_bytes(save(tensors(inputs=500_000, outputs=500_000, rank=8)))
    size_bytes = path.stat().st_size
    tracemalloc.start()
    try:
        with path.open("rb") as file:
            check_lora(file, None)
        assert tracemalloc.get_traced_memory()[1] < 12e6 < size_bytes
    finally:
        tracemalloc.stop()


def test_a_structure_needs_all_of_the_weights(tmp_path: Path) -> None:
    model = CATALOG.models["shapes-flux"]
    assert find_structure(model.model_copy(update={"repository": "owner/absent"})) is None
    assert find_structure(model.model_copy(update={"repository": str(tmp_path)})) is None
    (tmp_path / "model_index.json").write_bytes((Path(model.repository) / "model_index.json").read_bytes())
    structure = find_structure(model.model_copy(update={"repository": str(tmp_path)}))
    assert structure is not None
    assert structure.parts == {"text_encoder": None, "text_encoder_2": None, "transformer": None}
    assert check_lora(io.BytesIO(good()), structure).parts == ("transformer",)
    with pytest.raises(LoraFileError, match="has no text_encoder_3"):
        check_lora(io.BytesIO(save(tensors("text_encoder_3.x"))), structure)


def test_the_layer_s_name_is_in_the_fixtures() -> None:
    structure = find_structure(CATALOG.models["shapes-flux"])
    assert structure is not None
    part = structure.parts["transformer"]
    assert part is not None
    assert part.shapes[LAYER.removeprefix("transformer.")] == (WIDTH, WIDTH)
