"""What the hosted model's page tells people to run: the same requests, every number a text, and the same loop."""

import os
import time

import requests

server, key = os.environ["FOURSTEP_URL"], os.environ["FOURSTEP_KEY"]


def create(base, headers):
    response = requests.post(
        f"{base}/v1/prediction/",
        headers=headers,
        json={
            "model": "sdxl-lightning-4step",
            "version": "0.0.1",
            "input": {
                "seed": None,
                "width": "1024",
                "height": "1024",
                "prompt": "A superhero smiling",
                "scheduler": "K_EULER",
                "num_outputs": "1",
                "guidance_scale": "0",
                "negative_prompt": "worst quality, low quality",
                "num_inference_steps": "4",
                "disable_safety_checker": "true",
            },
            "webhook_url": "",
        },
        timeout=20,
    )
    answer = response.json()
    if answer["status"] != "success":
        raise RuntimeError(answer)
    return answer["predictionID"]


def wait_for(base, headers, prediction_id):
    while True:
        # The most impatient client seen gives up after 15 seconds.
        answer = requests.get(f"{base}/v1/prediction/{prediction_id}", headers=headers, timeout=15).json()
        if answer["status"] == "success":
            return answer
        if answer["status"] == "error":
            raise RuntimeError(answer)
        time.sleep(1)


for base in (server, f"{server}/eachlabs"):
    for headers in ({"X-API-Key": key}, {"Authorization": f"Bearer {key}"}):
        headers["Content-Type"] = "application/json"
        result = wait_for(base, headers, create(base, headers))
        assert result["metrics"]["predict_time"] > 0 and result["metrics"]["cost"] > 0, result
        # Anybody who has the URL may see the picture.
        picture = requests.get(result["output"][0], timeout=20)
        assert picture.headers["Content-Type"] == "image/png" and picture.content.startswith(b"\x89PNG\r\n")

# The loop ends when there is nothing to wait for: such an answer has no status.
for path, headers in (("0", {"X-API-Key": key}), ("0", {"X-API-Key": "wrong"})):
    try:
        wait_for(server, headers, path)
    except KeyError:
        continue
    raise AssertionError("the loop did not end")
