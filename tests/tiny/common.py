"""What the small random pipelines share: their width, text encoders, autoencoder, and what a case is."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from diffusers import AutoencoderKL, AutoencoderKLFlux2
from torch import nn
from transformers import CLIPTextConfig, CLIPTokenizer

from training import text

WIDTH = 32

#: Two prompts under CFG in one batch `[unconditional | conditional]`, and in two calls, the prompts' own first.
BATCHED = (False, False, True, True)
SEPARATE = (True, True, False, False)


@dataclass(frozen=True)
class Case:
    """A small random pipeline in its real layout, and how to call it.

    Attributes:
        name: of the family; another form of it adds words behind a dash.
        make: the pipeline, from a seed.
        options: arguments of a short call without CFG.
        cfg: what turns CFG on; None where the pipeline has none.
        conditional_rows: of one CFG step for two prompts, over all rows of all denoiser calls, those of the prompts.
        text: the denoiser's arguments that carry the prompt's tokens and their mask.
        text_tokens: as attention counts them, where that is not the length of the first of `text`.
        shared: how many of these, the first, are of no prompt: there is one of each, which reads the positive's text.
        modulation: the denoiser's submodule that makes a modulation of the text, which stays the positive's.
        attention: where the image's queries stand: in a joint sequence behind the text ("text_first") or ahead of it
            ("text_last"), or all of them, against the text ("cross") or text and image ("beside");
            "text_last, cross" is two of these in turn; "gist_first" is a joint sequence behind what a resampler makes
            of the text, and the whole sequence against the text.
        differential: whether the attention is the difference of two.
        in_one_call: a processor that does in one attention call what the model's own does in one for each row.
        output: the field of the pipeline's output.
        timestep: on a scale of 1000, of the one that the pipeline's callback is told.
        fewest_steps: that a call of the pipeline can run.
        sections: how many parts of the output a call denoises in turn, each by all its steps.
        is_plain: whether a denoiser call, by its arguments, denoises nothing and is never guided.
        frames: rows of text that the denoiser gets of one picture.
        one_length: whether the image's places follow from how long the text is, so that the oracle's rows, each with
            one prompt, compare only where all prompts have as many tokens.
        takes: what one call of the pipeline takes: "prompts" with several pictures each, prompts "without copies", or
            "one prompt".
        beside: a prompt that one call takes with "a red circle" and makes the same of as alone; of another length where
            the pipeline sees to that.

    """

    name: str
    make: Callable[[int], Any]
    options: Mapping[str, Any] = field(default_factory=dict)
    cfg: Mapping[str, Any] | None = None
    conditional_rows: tuple[bool, ...] = BATCHED
    text: tuple[str, ...] = ("encoder_hidden_states",)
    text_tokens: int | None = None
    shared: int = 0
    modulation: str | None = None
    attention: str = "cross"
    differential: bool = False
    in_one_call: Callable[[], Any] | None = None
    output: str = "images"
    timestep: Callable[[float], float] = float
    fewest_steps: int = 1
    sections: int = 1
    is_plain: Callable[[dict[str, Any]], bool] = lambda call: False
    frames: int = 1
    one_length: bool = False
    takes: str = "prompts"
    beside: str = "a"


def strengthen(model: nn.Module, gain: float = 2.0) -> None:
    """Scales attention values and outputs up: a freshly made network hardly hears its prompt."""
    for name, parameter in model.named_parameters():
        if parameter.ndim == 2 and any(part in name for part in ("to_v", "add_v", "to_out", "to_add_out", "proj_out")):
            parameter.data.mul_(gain)


def far_apart(encoder: Any) -> Any:
    """A text encoder that tells one word from another as a trained one would."""
    nn.init.normal_(encoder.get_input_embeddings().weight, std=1.0)
    return encoder.eval()


def flux2_vae(blocks: int = 2) -> AutoencoderKLFlux2:
    return AutoencoderKLFlux2(
        block_out_channels=(8, 8, 16, 16)[:blocks],
        down_block_types=("DownEncoderBlock2D",) * blocks,
        up_block_types=("UpDecoderBlock2D",) * blocks,
        latent_channels=4,
        layers_per_block=1,
        norm_num_groups=4,
    ).eval()


def vae(scale: int = 2, channels: int = 4) -> AutoencoderKL:
    blocks = scale.bit_length()
    return AutoencoderKL(
        block_out_channels=(8, 16, 16, 16)[:blocks],
        down_block_types=("DownEncoderBlock2D",) * blocks,
        up_block_types=("UpDecoderBlock2D",) * blocks,
        latent_channels=channels,
        layers_per_block=1,
        norm_num_groups=4,
        sample_size=32,
    )


def clip_config(tokenizer: CLIPTokenizer, **more: object) -> CLIPTextConfig:
    config = text.clip_encoder(tokenizer, WIDTH).config
    for name, value in more.items():
        setattr(config, name, value)
    return config
