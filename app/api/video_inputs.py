"""Reads the header of an uploaded video: its size and its number of frames."""

from __future__ import annotations

import io

from app.api.image_kinds import VIDEO_KINDS, identify
from app.errors import InvalidParameter

__all__ = ["UploadedVideo"]


class UploadedVideo:
    """One uploaded video, of which nothing is decoded here: a worker decodes as many frames as it uses.

    `size` is width and height in pixels, `frames` the number of frames.
    """

    has_transparency = False

    def __init__(self, name: str, data: bytes, *, max_px: int, max_bytes: int) -> None:
        """`name` is the request's field, for messages. Raises InvalidParameter."""
        if len(data) > max_bytes:
            raise InvalidParameter(f"{name}: must be at most {max_bytes} bytes, got {len(data)}", param=name)
        kind = identify(data)
        if kind not in VIDEO_KINDS:
            raise InvalidParameter(f"{name}: must be {' or '.join(VIDEO_KINDS)}, got {kind or 'another'}", param=name)
        import av  # here, since it loads numpy, which most API processes never need

        try:
            with av.open(io.BytesIO(data), "r") as container:
                stream = container.streams.video[0]
                self.size = stream.codec_context.width, stream.codec_context.height
                self.frames = sum(1 for packet in container.demux(stream) if packet.size)
        except Exception as exc:  # whatever a broken file makes of its reader
            message = f"{name}: the {kind} file is broken or incomplete; send the whole file"
            raise InvalidParameter(message, param=name) from exc
        width, height = self.size
        if not 0 < width * height <= max_px:
            message = f"{name}: must have at most {max_px} pixels per frame, got {width}x{height}"
            raise InvalidParameter(message, param=name)
        self.data = data
        self.warnings: list[str] = []

    def release(self) -> None:
        """Does nothing: no pixels are held."""
