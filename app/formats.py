"""Output formats of each kind of model and codecs of videos, the defaults first; and media types."""

from __future__ import annotations

__all__ = ["FORMATS", "IMAGES", "MEDIA_TYPES", "VIDEOS", "VIDEO_CODECS"]

IMAGES = {"png": "image/png", "jpeg": "image/jpeg", "webp": "image/webp"}
VIDEOS = {"mp4": "video/mp4"}
MEDIA_TYPES = IMAGES | VIDEOS
VIDEO_CODECS = ("h264", "av1")
FORMATS = {"image": tuple(IMAGES), "video": tuple(VIDEOS)}
