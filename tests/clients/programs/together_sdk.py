"""Together's SDK of Python."""

from reporting import KEY, PROMPT, URL, attempt
from together import Together

client = Together(base_url=URL, api_key=KEY)


def generate():
    answer = client.images.generate(
        model="shapes-flux", prompt=PROMPT, negative_prompt="red", steps=4, n=1, response_format="base64"
    )
    return answer.data[0].b64_json


attempt("generate, steps, base64, a negative prompt", generate)
