"""OpenAI's own SDK of Python."""

import time

from openai import OpenAI
from reporting import KEY, PNG, PROMPT, URL, attempt

client = OpenAI(base_url=f"{URL}/v1", api_key=KEY)


def first(answer):
    return answer.data[0].b64_json or answer.data[0].url


def edit():
    return first(client.images.edit(model="gpt-image-1", image=("a.png", PNG, "image/png"), prompt=PROMPT))


def video():
    made = client.videos.create(model="sora-2", prompt=PROMPT, seconds="4", size="1280x720")
    while made.status in ("queued", "in_progress"):
        time.sleep(0.5)
        made = client.videos.retrieve(made.id)
    return client.videos.download_content(made.id).read()


attempt("generate, gpt-image-1", lambda: first(client.images.generate(model="gpt-image-1", prompt=PROMPT)))
attempt(
    "generate, dall-e-3 hd vivid",
    lambda: first(
        client.images.generate(model="dall-e-3", prompt=PROMPT, size="1792x1024", quality="hd", style="vivid", n=1)
    ),
)
attempt("edit, gpt-image-1", edit)
if hasattr(client, "videos"):
    attempt("video, sora-2", video)
