"""agno's DalleTools and OpenAITools. They read the address of the API from OpenAI's variable."""

import os

from reporting import KEY, PROMPT, URL, attempt

os.environ |= {"OPENAI_BASE_URL": f"{URL}/v1", "OPENAI_API_KEY": KEY}

from agno.tools.dalle import DalleTools
from agno.tools.openai import OpenAITools


def first(result):
    if not getattr(result, "images", None):
        raise RuntimeError(getattr(result, "content", result))
    image = result.images[0]
    return image.url or image.content


attempt("DalleTools.create_image", lambda: first(DalleTools().create_image(PROMPT)))
attempt("OpenAITools.generate_image", lambda: first(OpenAITools().generate_image(PROMPT)))
