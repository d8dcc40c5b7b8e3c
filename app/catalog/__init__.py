"""The catalog: which models are served, how each is loaded, its limits and its defaults, read from TOML."""

from app.catalog.aliases import Alias
from app.catalog.catalog import Catalog
from app.catalog.entry import Kind, Model
from app.catalog.errors import CatalogError
from app.catalog.inputs import InputLimits, Inputs, field_of
from app.catalog.loading import Autoencoder, Lora, Scheduler, Size, Source, Weights
from app.catalog.loras import LORA_ID, CatalogLora, RegisteredLora, UploadedLora, is_uploaded
from app.catalog.ranges import NAG_BOUNDS, Method, NAGDefaults, Range
from app.catalog.speed import GGUF, Attention, Parallelism, Quantization, SpeedSettings, StepCache

__all__ = [
    "GGUF",
    "LORA_ID",
    "NAG_BOUNDS",
    "Alias",
    "Attention",
    "Autoencoder",
    "Catalog",
    "CatalogError",
    "CatalogLora",
    "InputLimits",
    "Inputs",
    "Kind",
    "Lora",
    "Method",
    "Model",
    "NAGDefaults",
    "Parallelism",
    "Quantization",
    "Range",
    "RegisteredLora",
    "Scheduler",
    "Size",
    "Source",
    "SpeedSettings",
    "StepCache",
    "UploadedLora",
    "Weights",
    "field_of",
    "is_uploaded",
]
