"""Encodes frames and sound to an MP4 that browsers play while it still loads, and decodes the frames of a video."""

from __future__ import annotations

import os
import tempfile
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, BinaryIO

import av
import numpy as np
from av.video.reformatter import ColorPrimaries, ColorRange, Colorspace, ColorTrc
from PIL import Image, ImageOps

__all__ = ["Sound", "can_write", "decode_frames", "encode_mp4"]

#: The same frames are the same bytes. x264's choices depend on its number of threads, so that is not the machine's
#: number of cores; and its macroblock tree reads memory that was never written where rows of blocks are odd in number.
THREADS = 4
ENCODERS = {
    "h264": ("libx264", {"preset": "medium", "crf": "20", "x264-params": "mbtree=0"}),
    "av1": ("libsvtav1", {"preset": "8", "crf": "30"}),
}
os.putenv("SVT_LOG", "1")  # the one way to keep SVT-AV1 from telling stderr about every video


@dataclass(frozen=True)
class Sound:
    """samples: (channels, N), one or two channels, float32 in [-1, 1]. rate: samples per second, one that AAC knows."""

    samples: np.ndarray[Any, np.dtype[np.float32]]
    rate: int

    def cut(self, start: int, end: int) -> av.AudioFrame:
        """Returns samples `start` to `end` as a frame; it is silent beyond the last sample."""
        samples = self.samples[:, start:end].clip(-1.0, 1.0)
        filled = np.pad(samples, ((0, 0), (0, end - start - samples.shape[1])))
        frame = av.AudioFrame.from_ndarray(filled.astype(np.float32), format="fltp", layout=self.layout)
        frame.sample_rate, frame.pts = self.rate, start
        return frame

    @property
    def layout(self) -> str:
        return "mono" if len(self.samples) == 1 else "stereo"


def can_write(video_codec: str) -> bool:
    """Whether the FFmpeg that is here was built with an encoder for it."""
    return ENCODERS[video_codec][0] in av.codecs_available


def encode_mp4(
    frames: np.ndarray[Any, np.dtype[np.uint8]],
    fps: int,
    video_codec: str = "h264",
    metadata: str | None = None,
    sound: Sound | None = None,
) -> BinaryIO:
    """Encodes RGB frames (F, H, W, 3), H and W even, in yuv420p, BT.709, each shown for 1 / fps seconds.

    Returns an open file that has no name on the disk and is gone when it is closed. `metadata` becomes its comment.
    `sound` becomes AAC; it is cut, or silent at its end, to be as long as the frames.
    """
    height, width = frames.shape[1:3]
    assert height % 2 == width % 2 == 0, "yuv420p has one colour for 2x2 pixels"
    encoder, options = ENCODERS[video_codec]
    # The index goes to the front by reading the file again: it must be one, on a disk.
    with tempfile.TemporaryDirectory(prefix="nag-") as folder:
        path = Path(folder) / "video.mp4"
        # Times in whole milliseconds, as is usual, would round the last frame's end.
        written = {"movflags": "+faststart", "movie_timescale": str(1000 * fps)}
        with av.open(str(path), "w", options=written) as container:
            if metadata is not None:
                container.metadata["comment"] = metadata
            stream = container.add_stream(encoder, rate=fps, options=dict(options))
            assert isinstance(stream, av.VideoStream)
            stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
            codec = stream.codec_context
            codec.thread_count = THREADS
            codec.color_range = ColorRange.MPEG
            codec.colorspace = Colorspace.ITU709
            codec.color_primaries = ColorPrimaries.BT709
            codec.color_trc = ColorTrc.BT709
            audio: av.AudioStream | None = None
            if sound is not None:
                audio = container.add_stream("aac", rate=sound.rate, layout=sound.layout)
            # SVT-AV1, where root runs it, leaves the thread that first opens it scheduled in real time, and all that is
            # started from there: this one ends.
            with ThreadPoolExecutor(1) as opening:
                opening.submit(container.start_encoding).result()
            for index, pixels in enumerate(frames):
                frame = av.VideoFrame.from_ndarray(pixels, format="rgb24")
                container.mux(stream.encode(_in_bt709(frame)))
                if sound is not None and audio is not None:
                    start, end = (round(place * sound.rate / fps) for place in (index, index + 1))
                    container.mux(audio.encode(sound.cut(start, end)))
            container.mux(stream.encode())
            if audio is not None:
                container.mux(audio.encode())
        return path.open("rb")


def _in_bt709(frame: av.VideoFrame) -> av.VideoFrame:
    return frame.reformat(format="yuv420p", dst_colorspace=Colorspace.ITU709, dst_color_range=ColorRange.MPEG)


def decode_frames(file: BinaryIO, count: int, size: tuple[int, int]) -> list[Image.Image]:
    """Returns the first frames of a video: upright, cut to the proportions of `size` around their middle, and scaled.

    Raises ValueError for a video with fewer than `count` frames, and what PyAV raises for a broken one.
    """
    file.seek(0)
    with av.open(file, "r") as container:
        upright = (
            frame.to_image().rotate(frame.rotation, expand=True)  # type: ignore[no-untyped-call]
            for frame in islice(container.decode(video=0), count)
        )
        images = [ImageOps.fit(image, size, Image.Resampling.LANCZOS) for image in upright]
    if len(images) != count:
        raise ValueError(f"the video has {len(images)} frames, not {count}")
    return images
