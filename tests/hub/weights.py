"""Files that entries add to a pipeline's repository: LoRAs in their publishers' key layouts, a tokenizer's model."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path

import torch
from safetensors.torch import save_file
from sentencepiece import sentencepiece_model_pb2
from torch import Tensor, nn

__all__ = ["kohya_unet", "lightx2v_qwen", "lightx2v_wan", "peft", "save_lora", "write_spiece_model"]

RANK = 2
#: Wan's own names of the projections that diffusers calls to_q, …
WAN = {"to_q": "q", "to_k": "k", "to_v": "v", "to_out.0": "o"}

Layout = Callable[[str, Tensor, Tensor], dict[str, Tensor]]


def save_lora(model: nn.Module, path: Path, layout: Layout) -> None:
    """A random LoRA of the model's attention projections; `layout` names the tensors of one."""
    path.parent.mkdir(parents=True, exist_ok=True)
    state: dict[str, Tensor] = {}
    generator = torch.Generator().manual_seed(0)
    for name, layer in _projections(model):
        down = torch.randn(RANK, layer.in_features, generator=generator) / layer.in_features**0.5
        up = torch.randn(layer.out_features, RANK, generator=generator) / RANK
        state |= layout(name, down, up)
    save_file(state, path)


def peft(component: str) -> Layout:
    """As diffusers saves it, and DMD2."""

    def layout(name: str, down: Tensor, up: Tensor) -> dict[str, Tensor]:
        return {f"{component}.{name}.lora_A.weight": down, f"{component}.{name}.lora_B.weight": up}

    return layout


def kohya_unet(name: str, down: Tensor, up: Tensor) -> dict[str, Tensor]:
    """As kohya's scripts save it, and Hyper-SD."""
    return _with_alpha(f"lora_unet_{name.replace('.', '_')}", down, up)


def lightx2v_qwen(name: str, down: Tensor, up: Tensor) -> dict[str, Tensor]:
    return _with_alpha(name, down, up)


def lightx2v_wan(name: str, down: Tensor, up: Tensor) -> dict[str, Tensor]:
    """By the names of Wan's own code."""
    block, _, rest = name.partition(".attn")
    attention, _, projection = rest.partition(".")
    own = {"1": "self_attn", "2": "cross_attn"}[attention]
    return _with_alpha(f"diffusion_model.{block}.{own}.{WAN[projection]}", down, up)


def write_spiece_model(folder: Path) -> None:
    """Replaces a T5 tokenizer's tokenizer.json by the SentencePiece model it would have been converted from."""
    path = folder / "tokenizer.json"
    pieces = json.loads(path.read_text(encoding="utf-8"))["model"]["vocab"]
    path.unlink()
    model = sentencepiece_model_pb2.ModelProto()  # type: ignore[attr-defined]
    model.trainer_spec.model_type = model.trainer_spec.UNIGRAM
    model.trainer_spec.pad_id, model.trainer_spec.eos_id, model.trainer_spec.unk_id = 0, 1, 2
    model.trainer_spec.bos_id = -1
    model.normalizer_spec.name = "nmt_nfkc"
    kinds = {"<pad>": model.SentencePiece.CONTROL, "</s>": model.SentencePiece.CONTROL}
    kinds["<unk>"] = model.SentencePiece.UNKNOWN
    for piece, score in pieces:
        model.pieces.add(piece=piece, score=score, type=kinds.get(piece, model.SentencePiece.NORMAL))
    (folder / "spiece.model").write_bytes(model.SerializeToString())
    path = folder / "tokenizer_config.json"
    config = json.loads(path.read_text(encoding="utf-8")) | {"tokenizer_class": "T5Tokenizer"}
    path.write_text(json.dumps(config), encoding="utf-8")


def _projections(model: nn.Module) -> Iterator[tuple[str, nn.Linear]]:
    for name, layer in model.named_modules():
        is_projection = ".attn" in name and name.endswith(tuple(f".{projection}" for projection in WAN))
        if isinstance(layer, nn.Linear) and is_projection:
            yield name, layer


def _with_alpha(name: str, down: Tensor, up: Tensor) -> dict[str, Tensor]:
    return {
        f"{name}.lora_down.weight": down,
        f"{name}.lora_up.weight": up,
        f"{name}.alpha": torch.tensor(float(RANK)),
    }
