"""Settings of the files that requests bring: inputs, uploaded files and LoRAs."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field, NonNegativeInt, PositiveFloat, PositiveInt

from app.settings.types import CommaList, SettingsGroup

__all__ = ["InputSettings"]

FileBytes = Annotated[int, Field(ge=1024)]


class InputSettings(SettingsGroup):
    input_max_bytes: FileBytes = 20_000_000
    """Largest image file that a request may start from."""

    input_max_px: PositiveInt = 16_777_216
    """Largest number of pixels of an image that a request may start from. It is checked before the image is decoded."""

    input_url_hosts: CommaList[str] = ()
    """Comma-separated hosts whose http(s) URLs are fetched as inputs; `.example.org` stands for all hosts below it.
    Default: none.
    """

    video_max_bytes: FileBytes = 200_000_000
    """Largest video file that may be uploaded."""

    files_max_bytes: NonNegativeInt = 1_000_000_000
    """Largest number of bytes of all uploaded files of a tenant."""

    file_retention_s: PositiveFloat = 86_400.0
    """Longest time that an uploaded file is kept."""

    lora_max_bytes: FileBytes = 10**9
    """Largest LoRA file that may be uploaded."""

    loras_per_tenant: NonNegativeInt = 100
    """Largest number of LoRAs that a tenant may upload, and of LoRAs that all tenants share."""

    lora_bytes_per_tenant: NonNegativeInt = 10**10
    """Largest number of bytes of the LoRAs that a tenant may upload, and of the LoRAs that all tenants share."""

    lora_cache_bytes: NonNegativeInt = 10**10
    """Bytes of copies of uploaded LoRAs in NAG_DATA_DIR. The least recently used copies are deleted first."""
