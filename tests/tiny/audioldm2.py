"""AudioLDM 2."""

from __future__ import annotations

import torch
from diffusers import (
    AudioLDM2Pipeline,
    AudioLDM2ProjectionModel,
    AudioLDM2UNet2DConditionModel,
    DDIMScheduler,
)
from tokenizers import pre_tokenizers
from transformers import (
    ClapAudioConfig,
    ClapConfig,
    ClapFeatureExtractor,
    ClapModel,
    ClapTextConfig,
    GPT2Config,
    GPT2LMHeadModel,
    RobertaTokenizer,
    SpeechT5HifiGan,
    SpeechT5HifiGanConfig,
    T5Tokenizer,
)

from tests.tiny.common import WIDTH, Case, far_apart, strengthen, vae
from training import text
from training.shapes.world import WORDS


def roberta_tokenizer() -> RobertaTokenizer:
    """Letter by letter."""
    pieces = ["<s>", "<pad>", "</s>", "<unk>", "<mask>", *sorted(pre_tokenizers.ByteLevel.alphabet())]
    return RobertaTokenizer(vocab={piece: i for i, piece in enumerate(pieces)}, merges=[], model_max_length=48)


def t5_tokenizer() -> T5Tokenizer:
    """The pipeline asks for this class."""
    pieces = [("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0), *((f"▁{word}", -2.0) for word in WORDS), ("▁", -6.0)]
    pieces += [(letter, -10.0) for letter in "abcdefghijklmnopqrstuvwxyz"]
    return T5Tokenizer(vocab=pieces, extra_ids=0, model_max_length=24)


def clap(tokenizer: RobertaTokenizer) -> ClapModel:
    sizes = {"projection_dim": WIDTH, "num_hidden_layers": 1}
    words = ClapTextConfig(
        vocab_size=len(tokenizer), hidden_size=WIDTH, intermediate_size=WIDTH, num_attention_heads=2, **sizes
    )
    sound = ClapAudioConfig(
        spec_size=8,
        window_size=4,
        num_mel_bins=8,
        intermediate_size=8,
        depths=[1],
        num_attention_heads=[1],
        hidden_size=16,
        patch_size=2,
        patch_stride=2,
        patch_embed_input_channels=1,
        patch_embeds_hidden_size=16,
        **sizes,
    )
    return ClapModel(ClapConfig(text_config=words.to_dict(), audio_config=sound.to_dict(), projection_dim=WIDTH))


def audioldm2(seed: int = 0) -> AudioLDM2Pipeline:
    torch.manual_seed(seed)
    roberta, tokenizer = roberta_tokenizer(), t5_tokenizer()
    encoder = far_apart(text.t5_encoder(tokenizer, WIDTH))
    generated = WIDTH // 2
    unet = AudioLDM2UNet2DConditionModel(
        sample_size=8,
        block_out_channels=(16, 16),
        layers_per_block=1,
        norm_num_groups=4,
        attention_head_dim=2,
        down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"),
        cross_attention_dim=[[None, generated, WIDTH]] * 2,  # with attention of the sound to itself, as released
    )
    strengthen(unet, 4.0)
    return AudioLDM2Pipeline(
        vae=vae(),
        text_encoder=clap(roberta).eval(),
        text_encoder_2=encoder,
        projection_model=AudioLDM2ProjectionModel(WIDTH, WIDTH, generated).eval(),
        language_model=GPT2LMHeadModel(
            GPT2Config(
                n_embd=generated,
                n_head=2,
                n_layer=2,
                n_positions=64,
                vocab_size=8,
                bos_token_id=None,
                eos_token_id=None,
            )
        ).eval(),
        tokenizer=roberta,
        tokenizer_2=tokenizer,
        feature_extractor=ClapFeatureExtractor(),
        unet=unet.eval(),
        scheduler=DDIMScheduler(),
        vocoder=SpeechT5HifiGan(
            SpeechT5HifiGanConfig(
                model_in_dim=8,
                upsample_initial_channel=8,
                upsample_rates=[2],
                upsample_kernel_sizes=[4],
                resblock_kernel_sizes=[3],
                resblock_dilation_sizes=[[1]],
                normalize_before=False,
            )
        ),
    )


CASES = (
    Case(
        "audioldm2",
        audioldm2,
        # As many as T5 has of three words, so that both texts are known by their count.
        options={"guidance_scale": 1.0, "max_new_tokens": 4},
        cfg={"guidance_scale": 3.0},
        text=("encoder_hidden_states", "encoder_hidden_states_1", "encoder_attention_mask_1"),
        output="audios",
        one_length=True,
        beside="a blue square",  # GPT-2 counts padding as tokens
    ),
)
