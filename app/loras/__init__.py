"""LoRA files, checked before anything is loaded: header, layout, shapes and values. Nothing here imports torch."""

from app.loras.check import LoraFacts, check_lora
from app.loras.errors import LoraFileError
from app.loras.structure import Structure, find_structure

__all__ = ["LoraFacts", "LoraFileError", "Structure", "check_lora", "find_structure"]
