"""What is read from an MP4 here, and how alike two videos are."""

from __future__ import annotations

import io
from dataclasses import dataclass
from fractions import Fraction

import av
import numpy as np
from av.frame import Frame


@dataclass(frozen=True)
class Video:
    codec: str
    pix_fmt: str
    color: tuple[int, ...]  # range, space, primaries, transfer
    fps: Fraction
    shown_at_s: list[Fraction]
    duration_s: Fraction
    frames: np.ndarray  # (F, H, W, 3), uint8
    comment: str | None
    #: Samples (channels, N), float32, and their rate; None if the video is silent.
    sound: tuple[np.ndarray, int] | None


def read(data: bytes) -> Video:
    with av.open(io.BytesIO(data), "r") as container:
        (stream,) = container.streams.video
        codec = stream.codec_context
        frames = list(container.decode(stream))
        assert codec.pix_fmt is not None
        assert stream.average_rate is not None
        assert stream.duration is not None
        assert stream.time_base is not None
        return Video(
            codec=codec.codec.canonical_name,
            pix_fmt=codec.pix_fmt,
            color=(codec.color_range, codec.colorspace, codec.color_primaries, codec.color_trc),
            fps=stream.average_rate,
            shown_at_s=[_time(frame) for frame in frames],
            duration_s=stream.duration * stream.time_base,
            frames=np.stack([each.to_ndarray(format="rgb24") for each in frames]),
            comment=container.metadata.get("comment"),
            sound=_sound(data),
        )


def _time(frame: Frame) -> Fraction:
    """Returns the second at which a frame is shown or begins to be heard."""
    assert frame.pts is not None
    assert frame.time_base is not None
    return frame.pts * frame.time_base


def _sound(data: bytes) -> tuple[np.ndarray, int] | None:
    with av.open(io.BytesIO(data), "r") as container:
        if not container.streams.audio:
            return None
        parts = [(_time(frame), frame.to_ndarray()) for frame in container.decode(audio=0)]
        rate = container.streams.audio[0].rate
    # What the encoder put ahead of the first sample has negative times.
    early = round(-parts[0][0] * rate)
    return np.concatenate([samples for _, samples in parts], axis=1)[:, max(0, early) :], rate


def boxes(data: bytes) -> list[str]:
    """The names of an MP4's outermost boxes, in order."""
    names, at = [], 0
    while at < len(data):
        names.append(data[at + 4 : at + 8].decode())
        at += int.from_bytes(data[at : at + 4], "big")
    return names


def psnr_db(a: np.ndarray, b: np.ndarray) -> float:
    """Of two uint8 arrays; higher is more alike, 20 is another picture, 30 is hard to tell apart."""
    error = np.mean((a.astype(np.float64) - b) ** 2)
    return float(10 * np.log10(255**2 / error))
