"""Stores the files of jobs, in a local folder or a bucket, behind one interface."""

from __future__ import annotations

from app.artifacts.artifacts import Artifacts, StoredFile
from app.artifacts.naming import artifact_name, input_name, lora_name, upload_name
from app.artifacts.store_factory import ArtifactsError

__all__ = ["Artifacts", "ArtifactsError", "StoredFile", "artifact_name", "input_name", "lora_name", "upload_name"]
