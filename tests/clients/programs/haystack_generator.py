"""Haystack's image generator."""

from haystack.components.generators import OpenAIImageGenerator
from haystack.utils import Secret
from reporting import KEY, PROMPT, URL, attempt

generator = OpenAIImageGenerator(api_key=Secret.from_token(KEY), api_base_url=f"{URL}/v1")


def generate():
    generator.warm_up()
    return generator.run(PROMPT)["images"][0]


attempt("OpenAIImageGenerator", generate)
