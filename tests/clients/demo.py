"""The Python clients with the model that a newcomer has: each leaves its picture in the working folder."""

import base64
import os
import time

import requests
from openai import OpenAI
from replicate.client import Client

PROMPT = "a red circle on a blue background"

server, key = os.environ["FOURSTEP_URL"], os.environ["FOURSTEP_KEY"]


def keep(name, picture):
    with open(f"{name}.png", "wb") as file:
        file.write(picture)


[output] = Client(api_token=key, base_url=server).run("bytedance/sdxl-lightning-4step", input={"prompt": PROMPT, "seed": 7})
keep("replicate-python", output.read())

made = OpenAI(api_key=key, base_url=f"{server}/openai/v1").images.generate(
    model="sdxl-lightning-4step", prompt=PROMPT, extra_body={"seed": 7}
)
keep("openai-python", base64.b64decode(made.data[0].b64_json))

headers = {"X-API-Key": key}
# As the hosted model's page has them: the numbers are texts.
wish = {"prompt": PROMPT, "seed": "7", "num_inference_steps": "4", "guidance_scale": "0"}
body = {"model": "sdxl-lightning-4step", "version": "0.0.1", "input": wish}
created = requests.post(f"{server}/v1/prediction/", headers=headers, json=body, timeout=20).json()
while True:
    answer = requests.get(f"{server}/v1/prediction/{created['predictionID']}", headers=headers, timeout=15).json()
    if answer["status"] == "success":
        break
    assert answer["status"] != "error", answer
    time.sleep(0.1)
keep("eachlabs-python", requests.get(answer["output"][0], timeout=20).content)
