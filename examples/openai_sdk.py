"""Uses OpenAI's SDK as it is: sdk.png. Fields that OpenAI's API does not have go into `extra_body`."""

import base64
import sys

from openai import OpenAI

URL = sys.argv[1] if len(sys.argv) > 1 else "http://127.0.0.1:8000"

with OpenAI(base_url=f"{URL}/v1", api_key="none") as client:  # or a key of this service
    answer = client.images.generate(
        prompt="a shape", extra_body={"negative_prompt": "a red shape", "nag_scale": 7, "seed": 7}
    )
with open("sdk.png", "wb") as file:
    file.write(base64.b64decode(answer.data[0].b64_json))
