"""LiteLLM's image_generation."""

import litellm
from reporting import KEY, PROMPT, URL, attempt

litellm.suppress_debug_info = True


def generate(model, **fields):
    answer = litellm.image_generation(
        model=f"openai/{model}", prompt=PROMPT, api_base=f"{URL}/v1", api_key=KEY, **fields
    )
    return answer.data[0].b64_json or answer.data[0].url


attempt("image_generation, gpt-image-1", lambda: generate("gpt-image-1", size="1024x1024", quality="high"))
attempt("image_generation, dall-e-3", lambda: generate("dall-e-3", size="1024x1024", quality="hd"))
attempt("the same, our fields", lambda: generate("shapes-flux", extra_body={"negative_prompt": "red"}))
