"""Small LoRA files for the embedded models, good ones and bad ones, as bytes."""

from __future__ import annotations

import gzip
import io
import json
import pickle
import zipfile
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from safetensors.numpy import save

#: Of shapes-flux's transformer: a linear layer of 192 inputs and outputs.
LAYER = "transformer.transformer_blocks.0.attn.to_q"
FLAT = "lora_unet_transformer_blocks_0_attn_to_q"
TEXT_LAYER = "text_encoder.text_model.encoder.layers.0.self_attn.q_proj"
WIDTH = 192


def tensors(
    name: str = LAYER, *, rank: int = 4, inputs: int = WIDTH, outputs: int = WIDTH, ends: str = "AB", seed: int = 0
) -> dict[str, np.ndarray[Any, Any]]:
    """One pair, in the layout of peft (`AB`) or of kohya-ss (`du`)."""
    generator = np.random.default_rng(seed)
    down, up = (".lora_A.weight", ".lora_B.weight") if ends == "AB" else (".lora_down.weight", ".lora_up.weight")
    return {
        name + down: generator.normal(size=(rank, inputs)).astype(np.float32),
        name + up: generator.normal(size=(outputs, rank)).astype(np.float32),
    }


def good(seed: int = 0) -> bytes:
    return save(tensors(seed=seed))


def written(header: Mapping[str, Any] | bytes | str, data: bytes = b"", length: int | None = None) -> bytes:
    """A file of this header, right or wrong."""
    text = header if isinstance(header, bytes) else header.encode() if isinstance(header, str) else b""
    text = text or json.dumps(header).encode()
    return (len(text) if length is None else length).to_bytes(8, "little") + text + data


def _changed(change: Callable[[dict[str, Any]], Any]) -> bytes:
    """A good file whose header was changed."""
    file = good()
    length = int.from_bytes(file[:8], "little")
    header = json.loads(file[8 : 8 + length])
    return written(change(header) or header, file[8 + length :])


def _tensor(shape: list[Any], offsets: list[Any], dtype: Any = "F32") -> dict[str, Any]:
    return {"dtype": dtype, "shape": shape, "data_offsets": offsets}


def _zip(size: int = 100) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("archive/data.pkl", bytes(size))
    return file.getvalue()


def _renamed(name: str) -> bytes:
    return save(tensors(name))


def _with(key: str, value: Any) -> bytes:
    return save(tensors() | {key: value})


def _not_finite(value: float, dtype: Any = np.float32) -> bytes:
    pair = {key: tensor.astype(dtype) for key, tensor in tensors().items()}
    pair[f"{LAYER}.lora_B.weight"][-1, -1] = value
    return save(pair)


DOWN, UP = f"{LAYER}.lora_A.weight", f"{LAYER}.lora_B.weight"
PAIR_BYTES = 2 * 4 * WIDTH * 4
HALF = PAIR_BYTES // 2
A, B = _tensor([4, WIDTH], [0, HALF]), _tensor([WIDTH, 4], [HALF, PAIR_BYTES])
ZEROS = bytes(PAIR_BYTES)

#: By what is wrong: the file, and what its error says.
BAD: dict[str, tuple[bytes, str]] = {
    "empty": (b"", "0 bytes"),
    "a few bytes": (b"LoRA", "4 bytes"),
    "a text": (b"not a LoRA at all, but prose", "safetensors"),
    "a pickle": (pickle.dumps({"weight": [1.0]}), "pickle"),
    "a zip as torch.save writes": (_zip(), "zip"),
    "a zip bomb": (_zip(50_000_000), "zip"),
    "a gzip bomb": (gzip.compress(bytes(50_000_000)), "gzip"),
    "gguf": (b"GGUF" + bytes(100), "GGUF"),
    "a huge header, announced": (written(b"{}", length=2**62), "header must be at most"),
    "a huge header, really": (written(b"{" + b" " * (9 * 2**20) + b"}"), "header must be at most"),
    "a header longer than the file": (written(b"{}", length=1000), "truncated"),
    "a header that is a list": (written("[1, 2]"), "JSON object"),
    "a header that is no JSON": (written('{"a": '), "not JSON"),
    "a header that is not UTF-8": (written(b'{"\xff\xfe": 1}'), "UTF-8"),
    "a header nested deeply": (written('{"a":' * 100_000 + "1" + "}" * 100_000), "nested|JSON"),
    "a number that JSON lacks": (written('{"a": NaN}'), "NaN"),
    "a number of many digits": (written('{"a": ' + "9" * 10_000 + "}"), "JSON"),
    "no tensors": (written("{}"), "no tensors"),
    "a key twice": (written(f'{{"{DOWN}": {json.dumps(A)}, "{DOWN}": {json.dumps(A)}}}', ZEROS), "twice"),
    "a field twice": (written(f'{{"{DOWN}": {{"dtype": "F32", "dtype": "F32"}}}}', ZEROS), "twice"),
    "a field more": (written({DOWN: {**A, "file": "/etc/passwd"}, UP: B}, ZEROS), "nothing else"),
    "metadata that is no text": (written({"__metadata__": {"a": 1}, DOWN: A, UP: B}, ZEROS), "__metadata__"),
    "a path as a key": (written({"../../etc/passwd": A, UP: B}, ZEROS), "no name of a tensor"),
    "an absolute path as a key": (written({"/etc/passwd": A, UP: B}, ZEROS), "no name of a tensor"),
    "a zero byte in a key": (written({f"{DOWN}\0": A, UP: B}, ZEROS), "no name of a tensor"),
    "a long key": (written({f"{'a' * 300}{DOWN}": A, UP: B}, ZEROS), "no name of a tensor"),
    "an unknown dtype": (written({DOWN: {**A, "dtype": "F4"}, UP: B}, ZEROS), "dtype"),
    "a dtype that is a list": (written({DOWN: {**A, "dtype": ["F32"]}, UP: B}, ZEROS), "dtype"),
    "integers": (save({key: tensor.astype(np.int32) for key, tensor in tensors().items()}), "dtype must be"),
    "doubles": (save({key: tensor.astype(np.float64) for key, tensor in tensors().items()}), "dtype must be"),
    "a negative size": (written({DOWN: _tensor([-4, -WIDTH], [0, HALF]), UP: B}, ZEROS), "shape"),
    "a size of 0": (written({DOWN: _tensor([0, WIDTH], [0, 0]), UP: B}, ZEROS), "shape"),
    "a size that is a float": (written({DOWN: _tensor([4.0, WIDTH], [0, HALF]), UP: B}, ZEROS), "shape"),
    "a size that is true": (written({DOWN: _tensor([True, WIDTH], [0, WIDTH * 4]), UP: B}, ZEROS), "shape"),
    "a huge size": (written({DOWN: _tensor([2**40, 2**40], [0, HALF]), UP: B}, ZEROS), "takes"),
    "many dimensions": (written({DOWN: _tensor([1] * 1000, [0, 4]), UP: B}, ZEROS), "shape"),
    "negative offsets": (written({DOWN: _tensor([4, WIDTH], [-HALF, 0]), UP: B}, ZEROS), "data_offsets"),
    "falling offsets": (written({DOWN: _tensor([4, WIDTH], [HALF, 0]), UP: B}, ZEROS), "data_offsets"),
    "offsets outside the file": (
        written({DOWN: A, UP: _tensor([WIDTH, 4], [10**12, 10**12 + HALF])}, ZEROS), "gap"
    ),
    "overlapping offsets": (written({DOWN: A, UP: _tensor([WIDTH, 4], [0, HALF])}, ZEROS[:HALF]), "overlap"),
    "a gap": (written({DOWN: A, UP: _tensor([WIDTH, 4], [HALF + 4, PAIR_BYTES + 4])}, ZEROS + b"gap!"), "gap"),
    "bytes of another size than the shape's": (written({DOWN: _tensor([4, 10], [0, HALF]), UP: B}, ZEROS), "takes"),
    "truncated": (good()[:-1], "truncated"),
    "truncated in its header": (good()[:100], "truncated"),
    "more bytes than tensors": (good() + b"more", "follow"),
    "NaN": (_not_finite(float("nan")), "NaN or infinite"),
    "infinite": (_not_finite(float("inf")), "NaN or infinite"),
    "infinite in float16": (_not_finite(-float("inf"), np.float16), "NaN or infinite"),
    "NaN in bfloat16": (
        written({DOWN: _tensor([4, WIDTH], [0, HALF // 2], "BF16"), UP: _tensor([WIDTH, 4], [HALF // 2, HALF], "BF16")},
                bytes(HALF - 2) + b"\xc0\x7f"),
        "NaN or infinite",
    ),
    "half of a pair": (save({DOWN: tensors()[DOWN]}), "missing"),
    "an alpha alone": (_with("transformer.proj_out.alpha", np.array(4, np.float32)), "missing"),
    "a factor in two layouts": (_with(f"{LAYER}.lora_down.weight", tensors()[DOWN]), "twice"),
    "ranks that differ": (save({DOWN: tensors(rank=4)[DOWN], UP: tensors(rank=3)[UP]}), "ranks"),
    "a huge rank": (save(tensors(rank=1025)), "rank must be at most"),
    "factors of one dimension": (save({DOWN: np.zeros(4, np.float32), UP: np.zeros(4, np.float32)}), "dimensions"),
    "an alpha of several numbers": (_with(f"{LAYER}.alpha", np.zeros(3, np.float32)), "one number"),
    "a second factor with a kernel": (
        save({DOWN: tensors()[DOWN], UP: np.zeros((WIDTH, 4, 3, 3), np.float32)}), "no kernel"
    ),
    "DoRA": (_with(f"{LAYER}.dora_scale", np.ones((WIDTH, 1), np.float32)), "DoRA"),
    "DoRA by peft": (_with(f"{LAYER}.lora_magnitude_vector", np.ones(WIDTH, np.float32)), "DoRA"),
    "DoRA by its configuration": (
        save(tensors(), metadata={"lora_adapter_metadata": '{"transformer.use_dora": true}'}), "DoRA"
    ),
    "LoHa": (save({"lora_unet_a.hada_w1_a": np.ones((4, 4), np.float32)}), "LoHa"),
    "LoKr": (save({"lora_unet_a.lokr_w1": np.ones((4, 4), np.float32)}), "LoKr"),
    "a bias": (_with(f"{LAYER}.lora_B.bias", np.ones(WIDTH, np.float32)), "biases"),
    "other weights": (save({"transformer.proj_out.weight": np.ones((12, WIDTH), np.float32)}), "no key of a LoRA"),
    "a layer that the model lacks": (_renamed("transformer.transformer_blocks.99.attn.to_q"), "no such layer"),
    "a part that the model lacks": (_renamed("text_encoder_3.encoder.layer"), "has no text_encoder_3"),
    "a layer of another width": (save(tensors(inputs=64)), "has the shape"),
    "another model's, flat": (
        save(tensors("lora_unet_down_blocks_0_attentions_0_to_q", inputs=320, outputs=320, ends="du")), "320 inputs"
    ),
    "another model's, by its authors' names": (
        save(tensors("diffusion_model.double_blocks.0.img_attn.qkv", inputs=3072, outputs=9216)), "3072 inputs"
    ),
}  # fmt: skip
