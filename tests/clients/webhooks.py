"""A receiver of webhooks, and who verifies them: the function in the README, and Replicate's own client."""

import json
import os
import queue
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer

import requests
from replicate.client import Client
from replicate.webhook import InvalidSignatureError, Webhooks
from snippet import verified
from standardwebhooks import WebhookVerificationError

MODEL = "bytedance/sdxl-lightning-4step"
SMALL = {"prompt": "a cat", "width": 256, "height": 256}

server, key = os.environ["FOURSTEP_URL"], os.environ["FOURSTEP_KEY"]
received = queue.Queue()


class Receiver(BaseHTTPRequestHandler):
    def do_POST(self):
        body = self.rfile.read(int(self.headers["Content-Length"]))
        received.put((dict(self.headers), body))
        self.send_response(204)
        self.end_headers()

    def log_message(self, *_):
        pass


receiver = HTTPServer(("127.0.0.1", 0), Receiver)
threading.Thread(target=receiver.serve_forever, daemon=True).start()
url = f"http://127.0.0.1:{receiver.server_port}/"

client = Client(api_token=key, base_url=server)
secret = client.webhooks.default.secret()
prediction = client.models.predictions.create(
    MODEL, input=SMALL, webhook=url, webhook_events_filter=["start", "completed"]
)
told = {}
while len(told) < 2:
    headers, body = received.get(timeout=60)
    document = verified(body, headers)
    assert document == json.loads(body) and document["id"] == prediction.id, document
    Webhooks.validate(headers=headers, body=body.decode(), secret=secret, tolerance=60)
    told[document["status"]] = document
assert told["processing"]["output"] is None and len(told["succeeded"]["output"]) == 1, told
prediction.reload()
assert told["succeeded"]["completed_at"] is not None and prediction.status == "succeeded"

for attempt, error in (
    (lambda: verified(body + b" ", headers), WebhookVerificationError),
    (lambda: Webhooks.validate(headers=headers, body="{}", secret=secret), InvalidSignatureError),
):
    try:
        attempt()
    except error:
        continue
    raise AssertionError("a forgery was not noticed")

created = requests.post(
    f"{server}/v1/prediction/",
    headers={"X-API-Key": key},
    json={"model": "sdxl-lightning-4step", "input": SMALL, "webhook_url": url, "webhook_secret": "my secret"},
    timeout=20,
).json()
headers, body = received.get(timeout=60)
assert headers["x-webhook-secret"] == "my secret", headers
assert verified(body, headers)["exec_id"] == created["predictionID"]
log = requests.get(
    f"{server}/v1/webhooks/{created['predictionID']}", headers={"X-API-Key": key}, timeout=20
).json()
assert log["request"] == body.decode(), log
