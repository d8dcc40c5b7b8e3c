"""semantic-kernel's OpenAITextToImage."""

import asyncio

from openai import AsyncOpenAI
from reporting import KEY, PROMPT, URL, attempt
from semantic_kernel.connectors.ai.open_ai import OpenAITextToImage

client = AsyncOpenAI(base_url=f"{URL}/v1", api_key=KEY)


def generate(model):
    service = OpenAITextToImage(ai_model_id=model, async_client=client)
    return asyncio.run(service.generate_image(PROMPT, width=1024, height=1024))


attempt("OpenAITextToImage, dall-e-3", lambda: generate("dall-e-3"))
