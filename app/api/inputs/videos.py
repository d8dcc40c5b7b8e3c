"""Reads the header of an uploaded video: its size, how it is turned, and its number of frames."""

from __future__ import annotations

import os
from typing import BinaryIO

from app.api.inputs.image_kinds import SIGNATURE_BYTES, VIDEO_KINDS, identify
from app.errors import InvalidParameter

__all__ = ["UploadedVideo"]


class UploadedVideo:
    """One uploaded video, of which only the first frame is decoded here: a worker decodes as many as it uses.

    `size` is the upright width and height in pixels, `frames` the number of frames.
    """

    has_transparency = False

    def __init__(self, name: str, file: BinaryIO, *, max_px: int, max_bytes: int) -> None:
        """`name` is the request's field, for messages. Raises InvalidParameter."""
        size_bytes = file.seek(0, os.SEEK_END)
        if size_bytes > max_bytes:
            raise InvalidParameter(f"{name}: must be at most {max_bytes} bytes, got {size_bytes}", param=name)
        file.seek(0)
        kind = identify(file.read(SIGNATURE_BYTES))
        if kind not in VIDEO_KINDS:
            raise InvalidParameter(f"{name}: must be {' or '.join(VIDEO_KINDS)}, got {kind or 'another'}", param=name)
        try:
            width, height, self.frames, rotation = _read_header(file, max_px)
        except Exception as exc:  # whatever a broken file makes of its reader
            message = f"{name}: the {kind} file is broken or incomplete; send the whole file"
            raise InvalidParameter(message, param=name) from exc
        if not 0 < width * height <= max_px:
            message = f"{name}: must have at most {max_px} pixels per frame, got {width}x{height}"
            raise InvalidParameter(message, param=name)
        self.size = (height, width) if rotation % 180 else (width, height)
        self.file = file
        self.warnings: list[str] = []

    def release(self) -> None:
        """Does nothing: no pixels are held."""


def _read_header(file: BinaryIO, max_px: int) -> tuple[int, int, int, int]:
    """Returns width, height, the number of frames, and by how many degrees they are turned counterclockwise.

    The turn is a property of decoded frames, so the first one is decoded, unless the frames have too many pixels.
    """
    import av  # here, since it loads numpy, which most API processes never need

    file.seek(0)
    with av.open(file, "r") as container:
        stream = container.streams.video[0]
        width, height = stream.codec_context.width, stream.codec_context.height
        frames, rotation = 0, None if 0 < width * height <= max_px else 0
        for packet in container.demux(stream):
            frames += packet.size > 0
            if rotation is None:
                rotation = next((frame.rotation for frame in packet.decode()), None)
    if rotation is None:
        raise ValueError("no frame could be decoded")
    return width, height, frames, rotation
