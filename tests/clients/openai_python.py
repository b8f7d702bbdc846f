"""OpenAI's own Python client: everything of its images API that there is here. Told by the environment where and who."""

import asyncio
import base64
import os
import urllib.request

import openai
from openai import AsyncOpenAI, OpenAI

MODEL = "sdxl-lightning-4step"
SMALL = {"model": MODEL, "prompt": "a cat", "size": "256x256"}

server, key = os.environ["FOURSTEP_URL"], os.environ["FOURSTEP_KEY"]


def picture(image):
    return base64.b64decode(image.b64_json)


def refused(error, param, call):
    try:
        call()
    except error as refusal:
        assert refusal.param == param, refusal.body
        assert refusal.message and refusal.type, refusal.body
        return refusal
    raise AssertionError("not refused")


# Under its own path, and at the root, where its images are nobody else's.
for base_url in (f"{server}/openai/v1", f"{server}/v1"):
    client = OpenAI(api_key=key, base_url=base_url, max_retries=0)
    made = client.images.generate(**SMALL, n=2, quality="high", user="u-1", extra_body={"seed": 7})
    assert len(made.data) == 2 and made.created > 1_700_000_000 and made.size == "256x256", made
    assert all(picture(image).startswith(b"\x89PNG\r\n") for image in made.data)
    assert [image.seed for image in made.data] == [7, 8]
    assert MODEL in [model.id for model in client.models.list()]
    assert client.models.retrieve(MODEL).owned_by == "bytedance"

raw = client.images.with_raw_response.generate(**SMALL, output_format="jpeg", output_compression=50)
assert picture(raw.parse().data[0]).startswith(b"\xff\xd8") and raw.parse().output_format == "jpeg"
assert raw.headers["fourstep-prediction-id"] and float(raw.headers["fourstep-cost-usd"]) > 0

[linked] = client.images.generate(**SMALL, response_format="url").data
assert linked.b64_json is None and urllib.request.urlopen(linked.url).read().startswith(b"\x89PNG\r\n")

# A size of the vendor's models that is too large here is drawn in its proportions.
wide = client.images.generate(model=MODEL, prompt="a cat", size="1536x864", extra_body={"complexity": "low"})
assert wide.size == "1280x720", wide.size

source = ("cat.png", picture(made.data[0]), "image/png")
for image in (source, [source]):
    edited = client.images.edit(model=MODEL, image=image, prompt="a dog", extra_body={"prompt_strength": 0.75})
    assert edited.size == "256x256" and picture(edited.data[0]).startswith(b"\x89PNG\r\n"), edited

with client.images.generate(**SMALL, stream=True, partial_images=2, extra_body={"num_inference_steps": 10}) as stream:
    events = list(stream)
*partial, completed = events
assert completed.type == "image_generation.completed" and picture(completed).startswith(b"\x89PNG\r\n")
assert 1 <= len(partial) <= 2, [event.type for event in events]
for index, event in enumerate(partial):
    assert event.type == "image_generation.partial_image" and event.partial_image_index == index
    assert picture(event).startswith(b"\xff\xd8") and event.output_format == "jpeg"
last = list(client.images.edit(model=MODEL, image=source, prompt="a dog", stream=True))[-1]
assert last.type == "image_edit.completed" and picture(last).startswith(b"\x89PNG\r\n")


async def ask():
    async with AsyncOpenAI(api_key=key, base_url=f"{server}/v1") as client:
        assert [model.id async for model in client.models.list()]
        assert (await client.images.generate(**SMALL)).data[0].b64_json


asyncio.run(ask())

refused(openai.BadRequestError, "n", lambda: client.images.generate(**SMALL, n=9))
refused(openai.BadRequestError, "size", lambda: client.images.generate(model=MODEL, prompt="a cat", size="10x10"))
refused(openai.BadRequestError, "sede", lambda: client.images.generate(**SMALL, extra_body={"sede": 7}))
refused(openai.BadRequestError, "mask", lambda: client.images.edit(**SMALL, image=source, mask=source))
refused(openai.BadRequestError, "image", lambda: client.images.edit(**SMALL, image=("a.png", b"no picture")))
unknown = refused(openai.NotFoundError, "model", lambda: client.images.generate(model="dall-e-3", prompt="a cat"))
assert unknown.code == "model_not_found"
refused(openai.NotFoundError, "model", lambda: client.models.retrieve("dall-e-3"))
# What there is not is asked for once, with a picture in it.
retrying = OpenAI(api_key=key, base_url=f"{server}/openai/v1", max_retries=2)
variations = refused(openai.InternalServerError, None, lambda: retrying.images.create_variation(image=source))
assert variations.response.request.headers["x-stainless-retry-count"] == "0" and variations.status_code == 501
stranger = OpenAI(api_key="wrong", base_url=f"{server}/openai/v1", max_retries=0)
assert refused(openai.AuthenticationError, None, lambda: stranger.images.generate(**SMALL)).code == "invalid_api_key"
refused(openai.NotFoundError, None, lambda: OpenAI(api_key=key, base_url=f"{server}/openai").images.generate(**SMALL))
