"""Cosmos 3: video by the classic pipeline, and with sound and action by a call of the denoiser."""

from __future__ import annotations

from typing import Any

import torch
from diffusers import Cosmos3OmniPipeline, Cosmos3OmniTransformer, UniPCMultistepScheduler
from torch import Tensor, nn

from tests.tiny.calls import DenoiserCall
from tests.tiny.chat import chat_tokenizer
from tests.tiny.common import WIDTH, Case, strengthen
from tests.tiny.qwen_image import VISION
from tests.tiny.wan import LATENTS, wan_vae

WORDS = 40
SOUND, ACTION = 3, 5
FRAMES, SIDE, PATCH = 2, 4, 2
#: Tokens of each kind behind the text.
VISION_TOKENS, SOUND_TOKENS, ACTION_TOKENS = FRAMES * (SIDE // PATCH) ** 2, 3, 2


def denoiser(seed: int = 0, **more: Any) -> Cosmos3OmniTransformer:
    torch.manual_seed(seed)
    sizes: dict[str, Any] = {
        "head_dim": 16,
        "hidden_size": WIDTH,
        "intermediate_size": WIDTH,
        "latent_channel": LATENTS,
        "latent_patch_size": PATCH,
        "patch_latent_dim": LATENTS * PATCH**2,
        "num_attention_heads": 2,
        "num_key_value_heads": 1,
        "num_hidden_layers": 2,
        "vocab_size": WORDS,
        "rope_axes_dim": (4, 2, 2),
        "sound_gen": True,
        "sound_dim": SOUND,
        "action_gen": True,
        "action_dim": ACTION,
        "num_embodiment_domains": 2,
    }
    model = Cosmos3OmniTransformer(**(sizes | more))
    strengthen(model, 4.0)
    nn.init.normal_(model.embed_tokens.weight, std=1.0)
    return model.eval()


def pipeline(seed: int = 0) -> Cosmos3OmniPipeline:
    tokenizer = chat_tokenizer(extra=VISION)
    model = denoiser(seed, vocab_size=len(tokenizer), sound_gen=False, action_gen=False)
    return Cosmos3OmniPipeline(
        transformer=model,
        text_tokenizer=tokenizer,
        vae=wan_vae(),
        scheduler=UniPCMultistepScheduler(prediction_type="flow_prediction", use_flow_sigmas=True),
        enable_safety_checker=False,
    )


def arguments(text: Tensor, places: int) -> dict[str, Any]:
    tokens = text.shape[1]
    generator = torch.Generator().manual_seed(1)
    counts = {"vision": VISION_TOKENS, "sound": SOUND_TOKENS, "action": ACTION_TOKENS}
    rest = sum(counts.values())
    indexes = dict(zip(counts, torch.arange(tokens, tokens + rest).split(list(counts.values())), strict=True))
    of_text = torch.arange(tokens).float().expand(3, -1)
    of_rest = places + 20 + torch.rand(3, rest, generator=generator) * 4
    return {
        "input_ids": text[0, :, 0].long(),
        "text_indexes": torch.arange(tokens),
        "position_ids": torch.cat([of_text, of_rest], dim=1),
        "und_len": tokens,
        "sequence_length": tokens + rest,
        "vision_tokens": [torch.randn(1, LATENTS, FRAMES, SIDE, SIDE, generator=generator)],
        "vision_token_shapes": [(FRAMES, SIDE // PATCH, SIDE // PATCH)],
        "vision_sequence_indexes": indexes["vision"],
        "vision_mse_loss_indexes": indexes["vision"][VISION_TOKENS // FRAMES :],  # the first frame is given
        "vision_timesteps": torch.full((VISION_TOKENS // FRAMES,), 800.0),
        "vision_noisy_frame_indexes": [torch.tensor([1])],
        "sound_tokens": [torch.randn(SOUND, SOUND_TOKENS, generator=generator)],
        "sound_token_shapes": [(SOUND_TOKENS, 1, 1)],
        "sound_sequence_indexes": indexes["sound"],
        "sound_mse_loss_indexes": indexes["sound"],
        "sound_timesteps": torch.full((SOUND_TOKENS,), 800.0),
        "sound_noisy_frame_indexes": [torch.arange(SOUND_TOKENS)],
        "action_tokens": [torch.randn(ACTION_TOKENS, ACTION, generator=generator)],
        "action_token_shapes": [(ACTION_TOKENS, 1, 1)],
        "action_sequence_indexes": indexes["action"],
        "action_mse_loss_indexes": indexes["action"],
        "action_timesteps": torch.full((ACTION_TOKENS,), 800.0),
        "action_noisy_frame_indexes": [torch.arange(ACTION_TOKENS)],
        "action_domain_ids": [torch.tensor(1)],
    }


def words(rows: int, tokens: int) -> Tensor:
    return torch.randint(WORDS, (rows, tokens, 1)).float()


CALLS = (DenoiserCall("cosmos3", denoiser, arguments, "beside", rows=1, text=words),)

OPTIONS = {
    "height": 32,
    "width": 32,
    "num_frames": 5,
    "use_system_prompt": False,
    "add_resolution_template": False,
    "add_duration_template": False,
}

CASES = (
    Case(
        "cosmos-3",
        pipeline,
        options=OPTIONS | {"guidance_scale": 1.0},
        cfg={"guidance_scale": 4.0},
        conditional_rows=(True, False),
        text=("input_ids",),
        text_tokens=10,
        attention="beside",
        output="video",
        one_length=True,
        takes="one prompt",
    ),
)
