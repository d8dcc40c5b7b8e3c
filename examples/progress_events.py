"""Follows a job by server-sent events, previews included: preview-0.jpg and so on, then final.png."""

import base64
import json
import sys
from collections.abc import Iterator
from typing import Any

import httpx

URL = sys.argv[1] if len(sys.argv) > 1 else "http://127.0.0.1:8000"
ENDS = ("completed", "failed", "cancelled", "expired")


def events(client: httpx.Client, job_id: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yields the name and data of each event, until the one that ends the job."""
    with client.stream("GET", f"/v1/jobs/{job_id}/events") as answer:
        name = ""
        for line in answer.iter_lines():
            field, _, value = line.partition(": ")
            if field == "event":
                name = value
            elif field == "data":
                yield name, json.loads(value)
                if name in ENDS:
                    return


with httpx.Client(base_url=URL, timeout=120) as client:
    request = {"prompt": "a shape", "negative_prompt": "a red shape", "seed": 7, "previews": 2}
    job = client.post("/v1/jobs", json=request).raise_for_status().json()
    count = 0
    for name, data in events(client, job["id"]):
        print(name, sorted(data))
        if name == "preview":
            with open(f"preview-{count}.jpg", "wb") as file:
                file.write(base64.b64decode(data["preview"]["b64_json"]))
            count += 1
    result = client.get(f"/v1/jobs/{job['id']}/result").raise_for_status()
with open("final.png", "wb") as file:
    file.write(result.content)
