"""The files that are made: which formats each kind of model has, its default first, and their media types."""

from __future__ import annotations

__all__ = ["FORMATS", "IMAGES", "MEDIA_TYPES", "VIDEOS"]

IMAGES = {"png": "image/png", "jpeg": "image/jpeg", "webp": "image/webp"}
VIDEOS = {"mp4": "video/mp4"}
MEDIA_TYPES = IMAGES | VIDEOS
FORMATS = {"image": tuple(IMAGES), "video": tuple(VIDEOS)}
