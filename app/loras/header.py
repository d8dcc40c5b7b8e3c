"""The header of a safetensors file, read within bounds.

Format (https://huggingface.co/docs/safetensors): 8 bytes with the length of the header, little-endian, the header as
a JSON object, and the tensors' bytes without gaps.
"""

from __future__ import annotations

import json
import math
import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, BinaryIO

from app.loras.errors import LoraFileError

__all__ = ["Header", "Tensor", "abbreviate", "read_header"]

LENGTH_BYTES = 8
HEADER_MAX_BYTES = 8 * 2**20
TENSORS_MAX = 50_000
DIMENSIONS_MAX = 5  # of a convolution over videos
KEY = re.compile(r"[A-Za-z0-9_.\-]{1,256}")
METADATA = "__metadata__"
FIELDS = {"dtype", "shape", "data_offsets"}
#: Bytes of an element, by the format's names.
WIDTHS = {
    "BOOL": 1, "U8": 1, "I8": 1, "F8_E5M2": 1, "F8_E4M3": 1, "F8_E8M0": 1, "U16": 2, "I16": 2, "F16": 2, "BF16": 2,
    "U32": 4, "I32": 4, "F32": 4, "U64": 8, "I64": 8, "F64": 8,
}  # fmt: skip
#: What files of other formats begin with, that are sent by mistake or on purpose.
OTHERS = {
    b"PK": "a zip archive, as torch.save writes it", b"\x80": "a pickle", b"\x1f\x8b": "a gzip file", b"GGUF": "GGUF",
}  # fmt: skip
SHOWN_MAX_CHARS = 100


@dataclass(frozen=True)
class Tensor:
    """A tensor of a file. `begin` and `end` are offsets of its bytes in the file."""

    dtype: str
    shape: tuple[int, ...]
    begin: int
    end: int


@dataclass(frozen=True)
class Header:
    """The tensors by their keys, in the order of their bytes, and the free text of the header."""

    tensors: Mapping[str, Tensor]
    metadata: Mapping[str, str]


def read_header(file: BinaryIO) -> Header:
    """Reads the header alone. Raises LoraFileError if the file is not safetensors from its first to its last byte."""
    size_bytes = file.seek(0, 2)
    file.seek(0)
    start = file.read(LENGTH_BYTES)
    for beginning, name in OTHERS.items():
        # The length of a header could begin like a pickle, but then it is not followed by an object.
        if start.startswith(beginning) and file.read(1) != b"{":
            raise LoraFileError(f"must be a safetensors file, got {name}")
    if len(start) < LENGTH_BYTES:
        raise LoraFileError(f"must be a safetensors file, got {size_bytes} bytes")
    length = int.from_bytes(start, "little")
    if length > HEADER_MAX_BYTES:
        raise LoraFileError(f"its header must be at most {HEADER_MAX_BYTES} bytes, got {length}; is it safetensors?")
    if LENGTH_BYTES + length > size_bytes:
        raise LoraFileError(f"it is truncated: a header of {length} bytes in a file of {size_bytes}")
    file.seek(LENGTH_BYTES)
    content = _parse(file.read(length))
    metadata = _metadata(content.pop(METADATA, {}))
    if len(content) > TENSORS_MAX:
        raise LoraFileError(f"it must hold at most {TENSORS_MAX} tensors, got {len(content)}")
    start_of_data = LENGTH_BYTES + length
    tensors = {key: _tensor(key, value, start_of_data) for key, value in content.items()}
    ordered = dict(sorted(tensors.items(), key=lambda item: (item[1].begin, item[1].end)))
    _check_layout(ordered, start_of_data, size_bytes)
    return Header(ordered, metadata)


def abbreviate(text: object) -> str:
    """Quotes a part of a file for an error, cut to SHOWN_MAX_CHARS."""
    quoted = repr(text)
    return quoted if len(quoted) <= SHOWN_MAX_CHARS else f"{quoted[:SHOWN_MAX_CHARS]}…"


def _parse(data: bytes) -> dict[str, Any]:
    if not data.startswith(b"{"):
        raise LoraFileError("its header is not a JSON object; is it a safetensors file?")
    try:
        content = json.loads(data.decode(), object_pairs_hook=_object, parse_constant=_constant)
    except UnicodeDecodeError as exc:
        raise LoraFileError("its header is not UTF-8") from exc
    except RecursionError as exc:
        raise LoraFileError("its header is nested too deeply") from exc
    except ValueError as exc:
        raise LoraFileError(f"its header is not JSON: {exc}") from exc
    assert isinstance(content, dict)
    return content


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    fields = dict(pairs)
    if len(fields) < len(pairs):
        key, _ = Counter(key for key, _ in pairs).most_common(1)[0]
        raise LoraFileError(f"its header has {abbreviate(key)} twice")
    return fields


def _constant(name: str) -> None:
    raise ValueError(f"{name} is no number of JSON")


def _metadata(value: object) -> dict[str, str]:
    if not isinstance(value, dict) or not all(isinstance(text, str) for text in value.values()):
        raise LoraFileError(f"its {METADATA} must be texts by name")
    return value


def _tensor(key: str, value: object, start: int) -> Tensor:
    if KEY.fullmatch(key) is None:
        raise LoraFileError(f"{abbreviate(key)} is no name of a tensor: letters, digits, '.', '_' and '-' alone")
    if not isinstance(value, dict) or value.keys() != FIELDS:
        raise LoraFileError(f"{key}: must have {', '.join(sorted(FIELDS))} and nothing else")
    dtype, shape, offsets = value["dtype"], value["shape"], value["data_offsets"]
    if not isinstance(dtype, str) or dtype not in WIDTHS:
        raise LoraFileError(f"{key}: unknown dtype {abbreviate(dtype)}")
    if not _is_integers(shape) or len(shape) > DIMENSIONS_MAX or not all(size > 0 for size in shape):
        raise LoraFileError(f"{key}: shape must be at most {DIMENSIONS_MAX} integers above 0, got {abbreviate(shape)}")
    if not _is_integers(offsets) or len(offsets) != 2 or not 0 <= offsets[0] <= offsets[1]:
        raise LoraFileError(f"{key}: data_offsets must be two rising integers from 0 on, got {abbreviate(offsets)}")
    needed = math.prod(shape) * WIDTHS[dtype]
    if offsets[1] - offsets[0] != needed:
        got = offsets[1] - offsets[0]
        raise LoraFileError(f"{key}: {dtype} of shape {abbreviate(shape)} takes {needed} bytes, not {got}")
    return Tensor(dtype, tuple(shape), start + offsets[0], start + offsets[1])


def _is_integers(value: object) -> bool:
    return isinstance(value, list) and all(type(number) is int for number in value)


def _check_layout(tensors: Mapping[str, Tensor], start: int, size_bytes: int) -> None:
    if not tensors:
        raise LoraFileError("it holds no tensors")
    end = start
    for name, tensor in tensors.items():
        if tensor.begin != end:
            problem = "overlap those before them" if tensor.begin < end else "leave a gap before them"
            raise LoraFileError(f"{name}: its bytes {problem}")
        end = tensor.end
    if end > size_bytes:
        raise LoraFileError(f"it is truncated: {end - size_bytes} bytes of its tensors are missing")
    if end < size_bytes:
        raise LoraFileError(f"{size_bytes - end} bytes follow the last of its tensors")
