"""The values of a file's tensors: numbers, all of them."""

from __future__ import annotations

from typing import BinaryIO

from app.loras.errors import LoraFileError
from app.loras.header import Header, Tensor

__all__ = ["DTYPES", "check_values"]

#: Read at a time.
CHUNK_BYTES = 4 * 2**20
#: How the bytes of each allowed dtype are read. Of bfloat16, which numpy does not have, as integers.
DTYPES = {"F32": "<f4", "F16": "<f2", "BF16": "<u2"}
BFLOAT16_EXPONENT = 0x7F80


def check_values(file: BinaryIO, header: Header) -> None:
    """Reads all tensors, a chunk at a time. Raises LoraFileError for a value that is not finite."""
    for key, tensor in header.tensors.items():
        file.seek(tensor.begin)
        left_bytes = tensor.end - tensor.begin
        while left_bytes:
            data = file.read(min(left_bytes, CHUNK_BYTES))
            if not data:
                raise LoraFileError("it is truncated")
            left_bytes -= len(data)
            if not _is_finite(data, tensor):
                raise LoraFileError(f"{key}: a value is NaN or infinite")


def _is_finite(data: bytes, tensor: Tensor) -> bool:
    import numpy as np  # here, since most API processes never need it

    values = np.frombuffer(data, DTYPES[tensor.dtype])
    if tensor.dtype == "BF16":
        return not bool(((values & BFLOAT16_EXPONENT) == BFLOAT16_EXPONENT).any())
    return bool(np.isfinite(values).all())
