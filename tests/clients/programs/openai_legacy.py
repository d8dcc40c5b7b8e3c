"""OpenAI's SDK of Python before its version 1, which has one namespace for all of its settings."""

import io

import openai
from reporting import KEY, PNG, PROMPT, URL, attempt

openai.api_base, openai.api_key = f"{URL}/v1", KEY


def first(answer):
    image = answer["data"][0]
    return image["url"] if "url" in image else image["b64_json"]


def edit():
    return openai.Image.create_edit(image=io.BytesIO(PNG), prompt=PROMPT, n=1)


attempt("Image.create", lambda: first(openai.Image.create(prompt=PROMPT)))
attempt(
    "Image.create, dall-e-2",
    lambda: openai.Image.create(model="dall-e-2", prompt=PROMPT, n=1, size="1024x1024")["data"][0]["url"],
)
attempt("Image.create_edit", lambda: first(edit()))
attempt("Model.list", lambda: f"{len(openai.Model.list()['data'])} models")
