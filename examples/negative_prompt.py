"""Asks a server for an image with a negative prompt: shape.png. Prints what was really used."""

import sys

import httpx

URL = sys.argv[1] if len(sys.argv) > 1 else "http://127.0.0.1:8000"

with httpx.Client(base_url=URL, timeout=120) as client:
    request = {"prompt": "a shape", "negative_prompt": "a red shape", "seed": 7, "nag": {"scale": 7}}
    answer = client.post("/v1/jobs", json=request, headers={"prefer": "wait=60"})
    answer.raise_for_status()
    job = answer.json()
    image = client.get(f"/v1/jobs/{job['id']}/result").raise_for_status()
with open("shape.png", "wb") as file:
    file.write(image.content)
print(job["status"], job["nag"])
