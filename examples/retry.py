"""Sends a request that may be sent again: with one Idempotency-Key it is one job, however often it is sent.

Waits as long as the server says if its queue is full.
"""

import sys
import time
import uuid

import httpx

URL = sys.argv[1] if len(sys.argv) > 1 else "http://127.0.0.1:8000"
ATTEMPTS = 5
DEFAULT_WAIT_S = 1.0


def submit(client: httpx.Client, request: dict, key: str) -> dict:
    """Returns the job of the request; tries again after a lost connection, a 429 and a 5xx."""
    for attempt in range(ATTEMPTS):
        wait_s = DEFAULT_WAIT_S * 2**attempt
        try:
            answer = client.post("/v1/jobs", json=request, headers={"idempotency-key": key})
        except httpx.TransportError as error:
            print(f"attempt {attempt + 1}: {error}")
        else:
            if answer.status_code != 429 and answer.status_code < 500:
                return answer.raise_for_status().json()
            wait_s = float(answer.headers.get("retry-after", wait_s))
        time.sleep(wait_s)
    raise SystemExit(f"no answer after {ATTEMPTS} attempts")


with httpx.Client(base_url=URL, timeout=120) as client:
    request = {"prompt": "a shape", "negative_prompt": "a red shape"}
    key = str(uuid.uuid4())
    first, second = submit(client, request, key), submit(client, request, key)
print("one job:", first["id"] == second["id"])
