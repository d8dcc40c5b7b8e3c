"""Asks for a video, polls until it is done, and saves it: video.mp4 and thumbnail.jpg."""

import sys
import time

import httpx

URL = sys.argv[1] if len(sys.argv) > 1 else "http://127.0.0.1:8000"
REQUEST = {"model": "shapes-wan", "prompt": "a circle moving left", "negative_prompt": "a red shape", "seed": 7}

with httpx.Client(base_url=URL, timeout=120) as client:
    answer = client.post("/v1/videos", json=REQUEST).raise_for_status()
    while (video := answer.json())["status"] in ("queued", "in_progress"):
        time.sleep(float(answer.headers.get("openai-poll-after-ms", 500)) / 1000)
        answer = client.get(f"/v1/videos/{video['id']}").raise_for_status()
    if video["status"] != "completed":
        sys.exit(f"the video failed: {video['error']}")
    content = client.get(f"/v1/videos/{video['id']}/content").raise_for_status()
    thumbnail = client.get(f"/v1/videos/{video['id']}/content", params={"variant": "thumbnail"}).raise_for_status()
with open("video.mp4", "wb") as file:
    file.write(content.content)
with open("thumbnail.jpg", "wb") as file:
    file.write(thumbnail.content)
