"""Frames to an MP4 that every browser plays while it still loads."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import av
import numpy as np
from av.video.reformatter import ColorPrimaries, ColorRange, Colorspace, ColorTrc

__all__ = ["encode_mp4"]

#: The same frames are the same bytes. x264's choices depend on its number of threads, so that is not the machine's
#: number of cores; and its macroblock tree reads memory that was never written where rows of blocks are odd in number.
THREADS = 4
X264 = {"preset": "medium", "crf": "20", "x264-params": "mbtree=0"}


def encode_mp4(frames: np.ndarray[Any, np.dtype[np.uint8]], fps: int) -> bytes:
    """RGB frames (F, H, W, 3), H and W even, as H.264 in yuv420p, BT.709, each shown for 1 / fps seconds."""
    height, width = frames.shape[1:3]
    assert height % 2 == width % 2 == 0, "yuv420p has one colour for 2x2 pixels"
    # The index goes to the front by reading the file again: it must be one, on a disk.
    with tempfile.TemporaryDirectory(prefix="nag-") as folder:
        path = Path(folder) / "video.mp4"
        # Times in whole milliseconds, as is usual, would round the last frame's end.
        options = {"movflags": "+faststart", "movie_timescale": str(1000 * fps)}
        with av.open(str(path), "w", options=options) as container:
            stream = container.add_stream("libx264", rate=fps, options=dict(X264))
            stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
            codec = stream.codec_context
            codec.thread_count = THREADS
            codec.color_range = ColorRange.MPEG
            codec.colorspace = Colorspace.ITU709
            codec.color_primaries = ColorPrimaries.BT709
            codec.color_trc = ColorTrc.BT709
            for each in frames:
                frame = av.VideoFrame.from_ndarray(each, format="rgb24")
                container.mux(stream.encode(_in_bt709(frame)))
            container.mux(stream.encode())
        return path.read_bytes()


def _in_bt709(frame: av.VideoFrame) -> av.VideoFrame:
    return frame.reformat(format="yuv420p", dst_colorspace=Colorspace.ITU709, dst_color_range=ColorRange.MPEG)
