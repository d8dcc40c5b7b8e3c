"""The catalog: which models are served, how each is loaded, its limits and its defaults, read from TOML."""

from app.catalog.catalog import Catalog
from app.catalog.entry import EditTask, Kind, Model
from app.catalog.errors import CatalogError
from app.catalog.loading import Autoencoder, Lora, Quantization, Scheduler, Source, Weights
from app.catalog.numbers import NAG_BOUNDS, Method, NAGDefaults, Range

__all__ = [
    "NAG_BOUNDS",
    "Autoencoder",
    "Catalog",
    "CatalogError",
    "EditTask",
    "Kind",
    "Lora",
    "Method",
    "Model",
    "NAGDefaults",
    "Quantization",
    "Range",
    "Scheduler",
    "Source",
    "Weights",
]
