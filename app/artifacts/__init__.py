"""The produced files: one an artifact, in a local folder or a bucket, by one interface."""

from __future__ import annotations

from app.artifacts.errors import ArtifactsError
from app.artifacts.names import artifact_name, input_name, lora_name, upload_name
from app.artifacts.store import Artifacts, Stored

__all__ = ["Artifacts", "ArtifactsError", "Stored", "artifact_name", "input_name", "lora_name", "upload_name"]
