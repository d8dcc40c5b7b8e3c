"""HiDream: joint attention, image first; behind it T5's text and two of Llama's layers, the second chosen per block.

All text stands at the origin of the rotary positions. Each text is packed on its own, so the sequence is
`[image | T5+ T5− | Llama+ Llama− | Llama+ Llama−]`. The pooled CLIP prompt stays the positive's.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from nag.errors import InvalidParameter
from nag.families.arguments import LAYERS, NUMBERS, ROWS, Argument
from nag.families.family import Family
from nag.negative import NegativeEmbeds
from nag.pipelines import Arguments, encode_prompts
from nag.token_layout import TokenLayout

__all__ = ["HiDream", "Texts"]

LLAMA = "encoder_hidden_states_llama3"


@dataclass(frozen=True)
class Texts(TokenLayout):
    """Several texts behind the image, each with both prompts' tokens.

    Attributes:
        of_each: the tokens of both prompts in each text.

    """

    of_each: tuple[tuple[int, int], ...] = ()

    def split(self, sequence: Tensor, dim: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        image, *texts = torch.split(sequence, [sequence.shape[dim] - self.text, *self._counts()], dim)
        return sequence.narrow(dim, 0, 0), torch.cat(texts[::2], dim), torch.cat(texts[1::2], dim), image

    def join(self, shared: Tensor, positive: Tensor, negative: Tensor, image: Tensor, dim: int) -> Tensor:  # noqa: ARG002
        counts = self._counts()
        of_positive, of_negative = torch.split(positive, counts[::2], dim), torch.split(negative, counts[1::2], dim)
        pairs = zip(of_positive, of_negative, strict=True)
        return torch.cat([image, *(part for pair in pairs for part in pair)], dim)

    def _counts(self) -> list[int]:
        # One of the prompts may have been taken out.
        pairs = (
            (positive * (self.positive > 0), negative * (self.negative > 0)) for positive, negative in self.of_each
        )
        return [count for pair in pairs for count in pair]


class HiDream(Family):
    name = "HiDream"
    models = "HiDream-I1 Full, Dev, Fast"
    attention = "joint"
    denoiser_types = ("HiDreamImageTransformer2DModel",)
    attention_modules = ("double_stream_blocks.*.block.attn1", "single_stream_blocks.*.block.attn1")
    processors = ("HiDreamAttnProcessor",)
    text_argument = "encoder_hidden_states_t5"
    text_last = True
    timestep_argument = "timesteps"
    arguments: ClassVar[dict[str, Argument]] = {
        "timesteps": NUMBERS,
        LLAMA: LAYERS,
        **dict.fromkeys(("pooled_embeds", "img_ids", "img_sizes", "hidden_states_masks"), ROWS),
    }
    unordered_layers = re.compile(r".*\.experts\..*")
    cfg = "batched"
    compiled = "in parts"
    notes = "equation 7, the positive's pooled prompt"
    #: With the prompts ahead of the layers, (N, layers, L, C); the T5 ones are the embeddings.
    extra_negative_inputs: ClassVar[dict[str, str]] = {"negative_prompt_embeds_llama3": LLAMA}

    def encode(self, encode_prompt: Callable[..., Any], prompts: Sequence[str], arguments: Arguments) -> NegativeEmbeds:
        t5, _, llama, _, pooled, _ = encode_prompts(encode_prompt, prompts, arguments)
        return NegativeEmbeds(t5, pooled, extra={LLAMA: llama.transpose(0, 1)})

    def layout(self, call: dict[str, Any], negative: NegativeEmbeds) -> TokenLayout:
        if len(call[LLAMA]) != negative.extra[LLAMA].shape[1]:
            raise InvalidParameter("negative_prompt_embeds_llama3", "must be (prompts, layers, tokens, channels)")
        llama = call[LLAMA].shape[2], negative.extra[LLAMA].shape[2]
        of_each = ((self.embeds(call).shape[1], negative.embeds.shape[1]), llama, llama)
        positive, negative_count = (sum(counts) for counts in zip(*of_each, strict=True))
        return Texts(positive, negative_count, text_last=True, of_each=of_each)

    def pack(self, call: dict[str, Any], negative: NegativeEmbeds) -> dict[str, Any]:
        llama = torch.cat([call[LLAMA], negative.extra[LLAMA].transpose(0, 1)], dim=2)
        return super().pack(call, negative) | {LLAMA: llama}
