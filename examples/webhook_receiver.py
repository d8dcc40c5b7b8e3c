"""Receives a webhook and checks its signature: webhook.json.

Start the server with the same secret, and let it reach this machine:
NAG_WEBHOOK_SECRET=whsec_… NAG_WEBHOOK_ALLOW=127.0.0.0/8 nag-server up
"""

import json
import os
import sys
from http.server import BaseHTTPRequestHandler, HTTPServer

import httpx
from standardwebhooks import Webhook, WebhookVerificationError

URL = sys.argv[1] if len(sys.argv) > 1 else "http://127.0.0.1:8000"
SECRET = os.environ["NAG_WEBHOOK_SECRET"]


class Receiver(BaseHTTPRequestHandler):
    """Takes events whose signature is right, and refuses others."""

    received: list[dict] = []

    def do_POST(self) -> None:
        """Answers 204, or 400 if the event is not the server's."""
        body = self.rfile.read(int(self.headers["content-length"]))
        try:
            event = Webhook(SECRET).verify(body, dict(self.headers))
        except WebhookVerificationError:
            self.send_error(400, "the signature is wrong")
            return
        self.received.append(event)  # the same webhook-id may come twice: keep the ids of what you have handled
        self.send_response(204)
        self.end_headers()


with HTTPServer(("127.0.0.1", 0), Receiver) as server:
    webhook = {"url": f"http://127.0.0.1:{server.server_port}/"}
    job = httpx.post(f"{URL}/v1/jobs", json={"prompt": "a shape", "seed": 7, "webhook": webhook}).raise_for_status()
    while not Receiver.received:
        server.handle_request()
event = Receiver.received[0]
with open("webhook.json", "w") as file:
    json.dump(event, file, indent=2)
print(event["type"], event["data"]["id"] == job.json()["id"])
