"""Asks by the web API of AUTOMATIC1111, as its clients do: web-ui.png."""

import base64
import json
import sys

import httpx

URL = sys.argv[1] if len(sys.argv) > 1 else "http://127.0.0.1:8000"

request = {"prompt": "a shape", "negative_prompt": "a red shape", "seed": 7, "width": 64, "height": 64, "steps": 4}
answer = httpx.post(f"{URL}/sdapi/v1/txt2img", json=request, timeout=120).raise_for_status().json()
with open("web-ui.png", "wb") as file:
    file.write(base64.b64decode(answer["images"][0]))
print(json.loads(answer["info"])["infotexts"][0])
