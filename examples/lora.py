"""Adds two LoRAs to a request, each with a weight: lora.png."""

import base64
import sys

import httpx

URL = sys.argv[1] if len(sys.argv) > 1 else "http://127.0.0.1:8000"

with httpx.Client(base_url=URL, timeout=120) as client:
    known = client.get("/v1/loras", params={"model": "shapes-flux"}).raise_for_status().json()
    print("LoRAs of shapes-flux:", [lora["id"] for lora in known["data"]])
    request = {
        "model": "shapes-flux",
        "prompt": "a red circle",
        "seed": 7,
        "loras": [{"id": "dotted", "scale": 0.8}, {"id": "underlined"}],
    }
    answer = client.post("/v1/images/generations", json=request).raise_for_status().json()
with open("lora.png", "wb") as file:
    file.write(base64.b64decode(answer["data"][0]["b64_json"]))
