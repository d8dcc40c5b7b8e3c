"""The networks that judge, as published or small and random."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import torch
from huggingface_hub import hf_hub_download
from torch import nn
from transformers import AutoTokenizer, CLIPModel

from benchmarks.paper_table.metrics import random_networks
from benchmarks.paper_table.metrics.clip_score import ClipScore
from benchmarks.paper_table.metrics.image_reward import ImageReward

__all__ = ["CLIP", "METRICS", "Metric", "Networks", "inception", "load"]

Metric = Literal["clip", "fid", "pfid", "imagereward"]
METRICS: tuple[Metric, ...] = ("clip", "fid", "pfid", "imagereward")
CLIP = "openai/clip-vit-base-patch32"
INCEPTION = "Inception v3 of torch-fidelity"
IMAGE_REWARD, BERT = "THUDM/ImageReward", "google-bert/bert-base-uncased"


@dataclass(frozen=True)
class Networks:
    """None where no metric asks for it. `weights` and `names` say whose judgement this is."""

    weights: Literal["pretrained", "random"]
    names: str
    clip: ClipScore | None = None
    inception: nn.Module | None = None
    image_reward: ImageReward | None = None

    def to(self, device: torch.device) -> None:
        for network in (self.clip, self.inception, self.image_reward):
            if network is not None:
                network.to(device)


def load(metrics: frozenset[Metric], weights: str, clip: str) -> Networks:
    """On the CPU. Raises ModuleNotFoundError without the extra `paper`, OSError for weights that are not to be had."""
    if weights == "random":
        words = random_networks.tokenizer()
        return Networks(
            "random",
            "small ones made up on the spot",
            ClipScore(random_networks.clip(), words) if "clip" in metrics else None,
            random_networks.Features() if metrics & {"fid", "pfid"} else None,
            ImageReward(random_networks.image_reward_state(len(words)), words) if "imagereward" in metrics else None,
        )
    named = {"clip": clip, "fid": INCEPTION, "pfid": INCEPTION, "imagereward": IMAGE_REWARD}
    return Networks(
        "pretrained",
        ", ".join(dict.fromkeys(named[metric] for metric in METRICS if metric in metrics)),
        ClipScore(CLIPModel.from_pretrained(clip), AutoTokenizer.from_pretrained(clip)) if "clip" in metrics else None,
        inception() if metrics & {"fid", "pfid"} else None,
        _image_reward() if "imagereward" in metrics else None,
    )


def inception() -> nn.Module:
    """Raises ModuleNotFoundError without torch-fidelity."""
    from torchmetrics.image.fid import NoTrainInceptionV3  # downloads where torch-fidelity has not yet

    network: Any = NoTrainInceptionV3(name="inception-v3-compat", features_list=["2048"])
    network.num_features = 2048
    found: nn.Module = network
    return found


def _image_reward() -> ImageReward:
    state = torch.load(hf_hub_download(IMAGE_REWARD, "ImageReward.pt"), map_location="cpu", weights_only=True)
    return ImageReward(state, AutoTokenizer.from_pretrained(BERT))
